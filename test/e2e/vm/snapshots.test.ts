/** One VM, put back to where it was, again and again. */
import { execa } from 'execa';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { TimeoutError } from '../../../src/errors.ts';
import { events, type SystemEvent } from '../../../src/events.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { clockOffMs } from './guest-time.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** How far a clock may be off that was set right: the way there, on a busy machine. */
const CLOCK_MS = 2_000 * SCALE;
/** Others look every two seconds whether the VM was put back. */
const NOTICED_MS = 15_000 * SCALE;
/** An agent that says nothing for this long was stopped. */
const MUTE_MS = 3_000 * SCALE;
/** Loading a snapshot, and then waiting in vain. */
const RENEW_MS = 15_000 * SCALE;
/** Counts in its memory alone, and says how far it is when it is asked. */
const COUNTER = `
import os, signal, time
count = 0
secret = os.urandom(8).hex()
def tell(*_):
    with open('/tmp/count.new', 'w') as file: file.write(f'{count} {secret}')
    os.rename('/tmp/count.new', '/tmp/count')
signal.signal(signal.SIGUSR1, tell)
open('/tmp/ready', 'w').close()
while True:
    count += 1
    time.sleep(0.01)
`;
/** Asks the counter. */
const ASK =
  'rm -f /tmp/count; kill -USR1 $(cat /tmp/pid); until [ -e /tmp/count ]; do sleep 0.02; done; cat /tmp/count';

const state = useTestState();
const seen: SystemEvent[] = [];
let vm: Vm;
let secret: string;
let counted: number;

const out = async (command: string): Promise<string> =>
  (await vm.commands.run(command)).stdout.trim();
const outAsRoot = async (command: string): Promise<string> =>
  (await vm.commands.run(command, { user: 'root' })).stdout.trim();
const ask = async () => {
  const [count = '', word = ''] = (await out(ASK)).split(' ');
  return { count: Number(count), word };
};
const names = async () => (await vm.snapshots.list()).map(({ name }) => name);
const cli = (...args: string[]) =>
  qmpAgent(['snapshot', args[0] ?? '', '--log-level', 'error', ...args.slice(1)], {
    env: state.box.env,
    timeoutMs: BOOT_MS,
  });
const vmStatus = async () => {
  const { stdout } = await qmpAgent(['qmp', 'snap', 'query-status'], { env: state.box.env });
  return JSON.parse(String(stdout)) as { running: boolean };
};
const restore = async (name: string): Promise<void> => {
  const startedAt = performance.now();
  await vm.snapshots.restore(name);
  const back = performance.now();
  await vm.commands.run(['true']);
  const ms = [back - startedAt, performance.now() - startedAt].map((n) => n.toFixed(0));
  if (process.env['TIMES'])
    process.stderr.write(`restore ${ms[0]} ms, first exec done ${ms[1]} ms\n`);
};

beforeAll(async () => {
  vm = await state.create({ persistent: true, name: 'snap' });
  events.subscribe((event) => seen.push(event));
  await vm.commands.run('echo kept > /var/tmp/kept; sync');
  await vm.commands.run('cat > /tmp/counter.py', { stdin: COUNTER });
  await vm.commands.run('echo $$ > /tmp/pid; exec python3 /tmp/counter.py', {
    background: true,
    timeoutMs: 0,
  });
  await vi.waitFor(() => vm.commands.run('test -e /tmp/ready'), {
    timeout: BOOT_MS,
    interval: 100,
  });
  ({ count: counted, word: secret } = await ask());
});

describe('a snapshot', () => {
  it('is taken while the VM runs, whose clock stays right', async () => {
    const before = Date.now();
    const info = await vm.snapshots.create('first', { description: 'before the work' });
    expect(info).toMatchObject({ name: 'first', description: 'before the work' });
    expect(info.sizeBytes).toBeGreaterThan(10 * 2 ** 20);
    expect(Math.abs(Date.parse(info.createdAt) - before)).toBeLessThan(60_000 * SCALE);
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
    expect(vm.state).toBe('running');
    expect(await vm.snapshots.list()).toEqual([info]);
    expect(seen).toContainEqual(
      expect.objectContaining({
        type: 'snapshot.created',
        vmId: vm.id,
        name: 'first',
        sizeBytes: info.sizeBytes,
        durationMs: expect.any(Number),
      }),
    );
  });

  it('is of a guest that has rehearsed its restore, where it is emulated; nothing of that is to be seen', async () => {
    const asked: string[] = [];
    events.enableTraces(['agent']);
    const unfollow = events.subscribe((event) => {
      if (event.type === 'trace.agent' && event.direction === 'out') asked.push(event.line);
    });
    // Not of the kernel's threads, which come and go, nor of whoever looks.
    const look = async () => ({
      commands: await vm.commands.list(),
      processesAndFiles: await outAsRoot(
        `ps --ppid 2 -p 2 -N -o pid=,args= | grep -ve --ppid -e /proc/self/fd/; ` +
          `find /tmp /run /var/tmp; find /etc /root /home /var -newer /var/tmp/before`,
      ),
    });
    await out('touch /var/tmp/before');
    const before = await look();
    const stepsFrom = asked.length;
    await vm.snapshots.create('rehearsed');
    unfollow();
    const steps = asked.slice(stepsFrom).map((line) => /^\w+ \S+/.exec(line)?.[0]);
    const rehearsal = ['POST /entropy', 'POST /clock', 'POST /execs'];
    const isEmulated = (await vm.info()).accel === 'tcg';
    const upToTheSave = steps.slice(0, steps.indexOf('POST /sync') + 1);
    expect(upToTheSave).toEqual(
      isEmulated ? expect.arrayContaining([...rehearsal, 'POST /sync']) : ['POST /sync'],
    );
    expect(await look()).toEqual(before);
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
    await restore('rehearsed');
    expect(await look()).toEqual(before);
    expect((await ask()).word).toBe(secret);
    await vm.snapshots.delete('rehearsed');
  });

  it('brings files, processes and their memory back, and nothing later', async () => {
    await vm.commands.run('echo changed > /var/tmp/kept; echo later > /var/tmp/later; sync');
    await vm.commands.run('kill -9 $(cat /tmp/pid)');
    await restore('first');
    expect(await out('cat /var/tmp/kept; ls /var/tmp')).toBe('kept\nkept');
    const { count, word } = await ask();
    expect(word).toBe(secret);
    expect(count).toBeGreaterThanOrEqual(counted);
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
    expect(seen).toContainEqual(
      expect.objectContaining({
        type: 'snapshot.restored',
        name: 'first',
        loadMs: expect.any(Number),
        durationMs: expect.any(Number),
      }),
    );
  });

  it('lets no later command answer to the handle of one that is no more', async () => {
    const start = () => vm.commands.run(['cat'], { background: true, stdin: true, timeoutMs: 0 });
    await restore('first');
    const before = await start();
    const stale = await vm.commands.connect(before.pid);
    const ends = [failureOf(before.wait()), failureOf(stale.wait())];
    await restore('first');
    const after = await start();
    for (const end of ends) expect(await end).toMatchObject({ code: 'ERR_VM_RESTORED' });
    const refused = { name: 'NotFoundError', kind: 'exec', vmId: vm.id };
    expect(await failureOf(stale.sendStdin('for another'))).toMatchObject(refused);
    expect(await failureOf(stale.closeStdin())).toMatchObject(refused);
    expect([await stale.kill(), await before.kill()]).toEqual([false, false]);
    await after.sendStdin('mine');
    await after.closeStdin();
    expect((await after.wait()).stdout).toBe('mine');
  });

  it('gives other random bytes each time', async () => {
    const draw = async () => {
      await restore('first');
      return out('head -c 16 /dev/urandom | od -An -tx1');
    };
    const [one, two] = [await draw(), await draw()];
    expect(one).not.toBe(two);
  });

  it('ends what waited for the guest, by name: here and in other processes', async () => {
    await using other = await Vm.connect(vm.id, state);
    const elsewhere = failureOf(other.commands.run('sleep 911', { timeoutMs: 0 }));
    const here = failureOf(vm.commands.run('sleep 912', { timeoutMs: 0 }));
    const sleeping = async () =>
      (await vm.commands.list()).filter(({ cmd }) => cmd.startsWith('sleep'));
    await expect.poll(sleeping, { timeout: NOTICED_MS }).toHaveLength(2);
    await vm.snapshots.restore('first');
    expect(await here).toMatchObject({
      name: 'VmRestoredError',
      code: 'ERR_VM_RESTORED',
      vmId: vm.id,
    });
    const restoredAt = performance.now();
    // Another process hears of it from the record or, sooner, from the wire.
    expect(await elsewhere).toMatchObject({ code: 'ERR_VM_RESTORED', vmId: vm.id });
    expect(performance.now() - restoredAt).toBeLessThan(NOTICED_MS);
    expect((await other.commands.run('cat /var/tmp/kept')).stdout).toBe('kept\n');
  });
});

describe('several snapshots', () => {
  it('are kept beside each other and come back in any order', async () => {
    await vm.commands.run('echo two > /var/tmp/kept; sync');
    await vm.snapshots.create('second');
    await vm.commands.run('echo three > /var/tmp/kept'); // in the page cache alone
    const third = await cli('create', 'snap', 'third', '--description', 'by another process');
    expect([third.stdout, third.stderr, third.exitCode]).toEqual(['third', '', 0]);
    expect(await names()).toEqual(['first', 'second', 'third']);
    for (const [name, content] of [
      ['first', 'kept'],
      ['third', 'three'],
      ['second', 'two'],
    ] as const) {
      await restore(name);
      expect(await out('cat /var/tmp/kept')).toBe(content);
    }
    expect((await ask()).word).toBe(secret);
  });

  it('are seen, restored and deleted by other processes', async () => {
    const listed = JSON.parse(String((await cli('list', 'snap', '--json')).stdout)) as unknown;
    expect(listed).toEqual(await vm.snapshots.list());
    const table = (await cli('list', 'snap')).stdout;
    expect(table).toMatch(/third .* by another process/);
    const restored = await cli('restore', 'snap', 'third');
    expect([restored.stdout, restored.stderr]).toEqual(['third', '']);
    expect(await out('cat /var/tmp/kept')).toBe('three');
    expect((await cli('delete', 'snap', 'third')).stdout).toBe('third');
    expect(await names()).toEqual(['first', 'second']);
    await vm.snapshots.delete('second');
    expect(seen).toContainEqual(
      expect.objectContaining({ type: 'snapshot.deleted', name: 'second' }),
    );
  });

  it('that cannot be are refused, with what to do', async () => {
    expect(await failureOf(vm.snapshots.create('first'))).toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('has a snapshot first already'),
      hint: expect.stringContaining('delete'),
    });
    expect(await failureOf(vm.snapshots.create('1'))).toMatchObject({ code: 'ERR_CONFIG' });
    for (const call of [vm.snapshots.restore('second'), vm.snapshots.delete('second')]) {
      expect(await failureOf(call)).toMatchObject({ code: 'ERR_NOT_FOUND', kind: 'snapshot' });
    }
    const { stderr, exitCode } = await cli('restore', 'snap', 'second');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/has no snapshot "second"\nhint: .*snapshot list/);
    expect((await vm.commands.run('echo untouched')).stdout).toBe('untouched\n');
  });
});

describe('a VM that is paused', () => {
  it('can be saved and put back twice, and stays paused', async () => {
    await vm.commands.run('echo paused > /var/tmp/kept; sync');
    await vm.pause();
    await vm.snapshots.create('paused');
    await vm.snapshots.restore('first');
    expect((await vm.info()).state).toBe('paused');
    expect(await failureOf(vm.commands.run('true'))).toMatchObject({ code: 'ERR_STATE' });
    await vm.snapshots.restore('paused');
    expect((await vm.info()).state).toBe('paused');
    await vm.resume();
    expect(await out('cat /var/tmp/kept')).toBe('paused');
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
  });
});

describe('a guest that cannot be given fresh entropy', () => {
  it('is left paused, until another snapshot is restored', async () => {
    const stopAgent = 'kill -STOP $(pgrep -x qmp-agent)';
    const handle = await vm.commands.run(stopAgent, { background: true, user: 'root' });
    expect(await failureOf(handle.wait({ timeoutMs: MUTE_MS }))).toBeInstanceOf(TimeoutError);
    await vm.snapshots.create('mute');
    for (const attempt of [
      () => vm.snapshots.restore('mute', { timeoutMs: RENEW_MS }),
      () => vm.resume({ timeoutMs: MUTE_MS }),
    ]) {
      expect(await failureOf(attempt())).toMatchObject({
        code: 'ERR_GUEST_CONNECT',
        message: expect.stringContaining('is paused'),
        hint: expect.stringContaining('resume'),
      });
      expect((await vm.info()).state).toBe('paused');
      const { running } = await vmStatus();
      expect(running).toBe(false);
    }
    await vm.snapshots.restore('first');
    await vm.resume();
    expect((await ask()).word).toBe(secret);
  });
});

describe('a VM that is stopped', () => {
  it('keeps its snapshots, in a disk without errors, for its next start', async () => {
    await vm.stop();
    const { diskPath } = vmPaths(state.paths, vm.id);
    const check = await execa('qemu-img', ['check', diskPath], { reject: false });
    expect([check.exitCode, check.stdout]).toEqual([0, expect.stringContaining('No errors')]);
    for (const call of [
      () => vm.snapshots.list(),
      () => vm.snapshots.create(),
      () => vm.snapshots.restore('first'),
    ]) {
      // One at a time: of those that nobody awaits yet, one may fail first.
      expect(await failureOf(call())).toMatchObject({ code: 'ERR_STATE', actual: 'stopped' });
    }
    await vm.start({ timeoutMs: BOOT_MS });
    await restore('first');
    expect((await ask()).word).toBe(secret);
    const fsck = await vm.commands.run('dmesg | grep -ciE "EXT4-fs error|I/O error"', {
      user: 'root',
      reject: false,
    });
    expect(fsck.stdout).toBe('0\n');
  });
});
