/** Forks: children of a running VM, machines of their own, while it goes on. In the lab too. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { events, type EventOf } from '../../../src/events.ts';
import { STEP_CHANNEL, type StepMessage } from '../../../src/steps.ts';
import { readRecord, writeRecord } from '../../../src/vm/record.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { checkpointsDir, vmPaths } from '../../../src/vm/vm-paths.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { readCount } from './guest-count.ts';
import { clockOffMs } from './guest-time.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';

/** How far a clock may be off that was set right: the way there, on a busy machine. */
const CLOCK_MS = 2_000 * SCALE;
/** Counts in memory and tells; the last number is in a file, too. */
const COUNTER = 'i=0; while :; do i=$((i+1)); echo $i; echo $i > /tmp/count; sleep 0.05; done';
/** What two machines must not share. */
const OWN =
  'hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | od -An -tx1 -w32; python3 -c "import os; print(os.getrandom(16).hex())"';

const state = useTestState();
let store: TemplateStore;
let vm: Vm;

const out = async (from: Vm, command: string): Promise<string> =>
  (await from.commands.run(command)).stdout.trim();
const asRoot = (on: Vm, command: string) => on.commands.run(command, { user: 'root' });
const count = async (from: Vm): Promise<number> => Number(await out(from, readCount('/tmp/count')));
const checkpoints = () => readdir(checkpointsDir(state.paths)).catch(() => []);
const ids = async () => (await Vm.list(state)).map(({ id }) => id);
const fork = (of: Vm, o: Parameters<Vm['fork']>[0] = {}) => of.fork({ timeoutMs: BOOT_MS, ...o });
/** Without the event loop: as long as a copy of a large memory that it takes part in. */
const sleepSync = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const closeAll = (vms: readonly Vm[]) => Promise.all(vms.map((one) => one.close()));

beforeAll(async () => {
  store = new TemplateStore(state.paths);
  const options = { paths: state.paths, timeoutMs: BOOT_MS };
  await createTemplate('plain', { ...options, memoryMib: 512, warm: 'python3 -c 0' });
  vm = await Vm.fromTemplate('plain', options);
});

afterAll(async () => {
  await vm.close();
  await store.remove('plain');
});

describe('children of a clone', () => {
  it('go on from where it is, each by itself, and it goes on, too', async () => {
    const forked: EventOf<'vm.forked'>[] = [];
    const unsubscribe = events.subscribe((event) => {
      if (event.type === 'vm.forked') forked.push(event);
    });
    let told = '';
    const counter = await vm.commands.run(COUNTER, {
      ...{ background: true, timeoutMs: 0 },
      onStdout: (text) => (told += text),
    });
    const giveUp = new AbortController();
    const foreground = vm.commands.run('sleep 620', { signal: giveUp.signal, timeoutMs: 0 });
    foreground.catch(() => undefined);
    const before = await count(vm);
    const children = await fork(vm, { count: 2 });
    unsubscribe();
    try {
      expect(forked).toMatchObject([{ vmId: vm.id, children: children.map(({ id }) => id) }]);
      expect(await checkpoints()).toHaveLength(1);
      const all = [vm, ...children];
      const facts = await Promise.all(all.map(async (one) => (await out(one, OWN)).split('\n')));
      expect(new Set(facts.flat()).size).toBe(facts.flat().length);
      expect(facts.map(([hostname]) => hostname)).toEqual(all.map(({ id }) => id));
      for (const one of all) {
        const first = await count(one);
        expect(first).toBeGreaterThan(before);
        await expect.poll(() => count(one)).toBeGreaterThan(first);
        expect(await clockOffMs(one)).toBeLessThan(CLOCK_MS);
      }
      for (const child of children) {
        const commands = (await child.commands.list()).map(({ pid }) => pid);
        expect(commands).toContain(counter.pid); // nobody is connected to it, and it goes on
        expect(commands).toHaveLength(2); // the one in the foreground of the original, too
        await out(child, `echo ${child.id} > /var/tmp/whose; sync`);
      }
      for (const child of children) expect(await out(child, 'cat /var/tmp/whose')).toBe(child.id);
      expect(await out(vm, 'ls /var/tmp')).not.toContain('whose');
    } finally {
      await closeAll(children);
      giveUp.abort();
      await counter.kill();
    }
    const numbers = told.trim().split('\n').map(Number);
    expect(numbers).toEqual(numbers.map((_, index) => index + 1)); // none is missing
    expect(await checkpoints()).toEqual([]);
  });

  it('have children, and outlive those they come from', async () => {
    await out(vm, 'echo first > /var/tmp/line; echo first > /dev/shm/line');
    const asked = [0, 150, 300, 450].map((ms) => delay(ms).then(() => out(vm, 'echo on')));
    const [child] = await fork(vm);
    if (child === undefined) throw new Error('no child');
    expect(await Promise.all(asked)).toEqual(asked.map(() => 'on')); // one in the pause starts after it
    await out(child, 'echo second >> /var/tmp/line; echo second >> /dev/shm/line');
    const [grandchild] = await fork(child);
    if (grandchild === undefined) throw new Error('no grandchild');
    expect(await checkpoints()).toHaveLength(2);
    await child.close();
    expect(await checkpoints()).toHaveLength(2); // its disk stands on both
    expect(await out(grandchild, 'cat /var/tmp/line /dev/shm/line')).toBe(
      'first\nsecond\nfirst\nsecond',
    );
    expect((await failureOf(store.remove('plain'))).message).toContain(grandchild.id);
    await grandchild.close();
    expect(await checkpoints()).toEqual([]);
  });

  it('are all removed where one cannot be made a machine of its own', async () => {
    await asRoot(vm, 'mv /etc/machine-id /etc/machine-id.kept && mkdir /etc/machine-id');
    const before = await ids();
    expect(await failureOf(fork(vm, { count: 2 }))).toMatchObject({ code: 'ERR_GUEST_CONNECT' });
    expect(await ids()).toEqual(before);
    expect(await checkpoints()).toEqual([]);
    await asRoot(vm, 'rmdir /etc/machine-id && mv /etc/machine-id.kept /etc/machine-id');
    expect(await out(vm, 'echo on')).toBe('on');
  });

  it('are not waited for longer than was allowed, however much there is to copy', async () => {
    const slow = (message: unknown) => {
      const { operation, step } = message as StepMessage;
      if (operation === 'fork' && step === 'copy') sleepSync(2_000);
    };
    subscribe(STEP_CHANNEL, slow);
    try {
      const error = await failureOf(vm.fork({ timeoutMs: 2_000 }));
      expect(error).toMatchObject({ code: 'ERR_TIMEOUT', operation: `forking VM ${vm.id}` });
    } finally {
      unsubscribe(STEP_CHANNEL, slow);
    }
    expect(await ids()).toEqual([vm.id]);
    expect(await checkpoints()).toEqual([]);
    expect(await out(vm, 'echo on')).toBe('on');
  });

  it('cannot be had by who finds all channels taken, and that is said soon', async (ctx) => {
    ctx.skip((await vm.info()).channel === 'vsock', 'vsock has room for all');
    const { ports = 0 } = (await readRecord(vmPaths(state.paths, vm.id)))?.run ?? {};
    await vm.guest();
    const users: Vm[] = [];
    while (users.length < ports - 1) {
      const user = await Vm.connect(vm.id, state);
      users.push(user);
      await user.guest();
    }
    const other = await Vm.connect(vm.id, state);
    const startedAt = performance.now();
    const error = await failureOf(fork(other));
    expect(error).toMatchObject({
      code: 'ERR_TIMEOUT',
      message: expect.stringContaining('a free channel'),
      hint: expect.stringContaining('in use by other processes'),
    });
    expect(performance.now() - startedAt).toBeLessThan(20_000 * SCALE);
    await closeAll([other, ...users]);
    expect(await ids()).toEqual([vm.id]);
    expect(await out(vm, 'echo on')).toBe('on');
  });

  it('are refused, and nothing is left', async () => {
    expect(await failureOf(fork(vm, { count: 65 }))).toMatchObject({ field: 'fork.count' });
    expect(await failureOf(fork(vm, { names: ['a', 'a'] }))).toMatchObject({ field: 'fork.names' });
    const reason = new Error('no more');
    const signal = AbortSignal.abort(reason);
    expect(await failureOf(fork(vm, { signal }))).toBe(reason);
    const late = new AbortController();
    const forking = fork(vm, { signal: late.signal });
    await delay(200);
    late.abort(reason);
    expect(await failureOf(forking)).toBe(reason);
    await vm.pause();
    expect(await failureOf(fork(vm))).toMatchObject({ code: 'ERR_STATE', actual: 'paused' });
    await vm.resume();
    expect(await ids()).toEqual([vm.id]);
    expect(await checkpoints()).toEqual([]);
    expect(await out(vm, 'echo on')).toBe('on');
  });
});

describe('children of a VM that booted', () => {
  const cli = (...args: string[]) =>
    qmpAgent(args, {
      env: { ...state.box.env, QMP_AGENT_LOG_LEVEL: 'error' },
      timeoutMs: BOOT_MS,
    });

  it('stay, and start from their own disks', async () => {
    const original = await state.create({ name: 'work', persistent: true, memoryMib: 512 });
    await out(original, 'echo here > /var/tmp/here');
    // All channels are in use, and in a child each has a session that nobody knows of.
    const users = await Promise.all([1, 2, 3].map(() => Vm.connect('work', state)));
    for (const user of [original, ...users]) await user.guest();
    const [crowded] = await fork(original);
    if (crowded === undefined) throw new Error('no child');
    expect(await out(crowded, 'cat /var/tmp/here')).toBe('here');
    await closeAll([crowded, ...users]);

    const made = await cli('fork', 'work', '--name', 'left', '--name', 'right');
    expect(made.exitCode).toBe(0);
    const [left, right] = await Promise.all(
      String(made.stdout)
        .split('\n')
        .map((id) => Vm.connect(id, state)),
    );
    if (left === undefined || right === undefined) throw new Error('not two children');
    expect([left.name, right.name]).toEqual(['left', 'right']);
    const tree = String((await cli('tree')).stdout);
    expect(tree).toMatch(/^base .*\n(.*\n)*.* work .*\n.* checkpoint\n.* left .*\n.* right /m);
    const taken = await cli('fork', 'work', '--name', 'other', '--name', 'left', '--json');
    expect(taken.exitCode).toBe(1);
    expect(String(taken.stderr)).toContain('ERR_CONFIG');
    expect(await ids()).toHaveLength(4);
    await original.remove({ force: true });
    expect(await out(right, 'hostname; cat /var/tmp/here')).toBe('right\nhere');
    await right.remove({ force: true });
    await left.stop();
    await left.start({ timeoutMs: BOOT_MS });
    expect(await out(left, 'hostname; cat /var/tmp/here')).toBe('left\nhere');

    // Whoever forks it dies in the midst, and leaves it standing.
    const session = await left.guest();
    await session.park();
    const files = vmPaths(state.paths, left.id);
    const record = await readRecord(files);
    if (record?.run === undefined) throw new Error('it does not run');
    await writeRecord(files, { ...record, run: { ...record.run, forking: true } });
    await left.close();
    await using next = await Vm.connect('left', state);
    expect(await out(next, 'echo on')).toBe('on');
    expect((await readRecord(files))?.run?.forking).toBeUndefined();
    await next.remove({ force: true });
    expect(await checkpoints()).toEqual([]);
    await right.close();
  });
});
