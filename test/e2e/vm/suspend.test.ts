/** A VM written to disk and brought back: its processes and memory, again and again, whatever breaks off. */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';
import { events } from '../../../src/events.ts';
import { usedBytes } from '../../../src/storage/index.ts';
import type { StatePaths } from '../../../src/vm/api.ts';
import type { VmRun } from '../../../src/vm/record.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { mountObstacle, mountSmall, type SmallFilesystem } from './mounts.ts';
import { readCount } from './guest-count.ts';
import { clockOffMs } from './guest-time.ts';
import { BOOT_MS, failureOf, qemuPid, useTestState } from './state.ts';

/** How far a clock may be off that was set right: the way there, on a busy machine. */
const CLOCK_MS = 2_000 * SCALE;
/** Twice what a VM of 256 MiB takes: what is saved, and holes of a tmpfs that were read. */
const DISK = '700m';
/** Counts in its memory alone, and tells. */
const COUNTER = 'n=0; while :; do n=$((n + 1)); echo $n > /dev/shm/count; sleep 0.05; done';
const root = fileURLToPath(new URL('../../..', import.meta.url));

const state = useTestState();
const obstacle = mountObstacle();
let paths: StatePaths;
let vm: Vm;

const cli = (...args: string[]) =>
  qmpAgent(args, {
    env: {
      ...state.box.env,
      QMP_AGENT_LOG_LEVEL: 'error',
    },
    timeoutMs: BOOT_MS,
  });
const out = async (command: string, from = vm): Promise<string> =>
  (await from.commands.run(command)).stdout.trim();
const count = async (from = vm) => Number(await out(readCount('/dev/shm/count'), from));
const goesOn = async (from = vm) => {
  const before = await count(from);
  await expect.poll(() => count(from), { timeout: CLOCK_MS }).toBeGreaterThan(before);
  return before;
};
const filesOf = (one = vm) => vmPaths(paths, one.id);
const savedOf = async (one = vm) =>
  (await readdir(filesOf(one).dir)).filter((name) => name.startsWith('saved-'));
const qemusOf = async (one = vm) =>
  (await execa('pgrep', ['-f', `-name qmp-agent-${one.id}`], { reject: false })).stdout;
const ourBytes = async () => {
  const { dir, diskPath } = filesOf();
  const memory = (await savedOf()).map((name) => join(dir, name, 'memory'));
  return (await Promise.all([...memory, diskPath].map(usedBytes))).reduce((a, b) => a + b, 0);
};
/** A process of its own that is killed when it has said this to QEMU. */
const dieAt = async (verb: 'suspend' | 'resume', words: string) => {
  const code = `
    import { events } from ${JSON.stringify(join(root, 'src/events.ts'))};
    import { Vm } from ${JSON.stringify(join(root, 'src/vm/vm.ts'))};
    events.enableTraces(['qmp']);
    events.subscribe(({ type, line, direction }) => {
      if (type === 'trace.qmp' && direction === 'out' && line.includes(${JSON.stringify(words)}))
        process.kill(process.pid, 'SIGKILL');
    });
    const vm = await Vm.connect('${vm.id}', { paths: ${JSON.stringify(paths)} });
    await vm.${verb}();
    process.exit();`;
  const tsx = join(root, 'node_modules/tsx/dist/esm/index.mjs');
  const words_ = ['--import', tsx, '--input-type=module', '-e', code];
  return execa(process.execPath, words_, { reject: false, timeout: BOOT_MS });
};

beforeAll(async () => {
  paths = state.paths;
  vm = await state.create({ paths, persistent: true, name: 'sus', memoryMib: 512 });
  await vm.commands.run(COUNTER, { background: true, timeoutMs: 0, tag: 'counter' });
  await vm.commands.run('echo page cache > /var/tmp/kept; echo tmpfs > /dev/shm/kept');
});
afterAll(async () => {
  await vm?.remove({ force: true });
});

describe('a VM', () => {
  it('is written to disk, and its QEMU is gone', async () => {
    const pid = await qemuPid(vm);
    const waiting = await vm.commands.run('sleep 950', { background: true, timeoutMs: 0 });
    const told = failureOf(waiting.wait());
    const asked = await cli('suspend', 'sus');
    expect([asked.stdout, asked.stderr, asked.exitCode]).toEqual(['sus', '', 0]);
    expect(await told).toMatchObject({
      code: 'ERR_VM_DIED',
      message: expect.stringContaining('was suspended'),
      hint: expect.stringContaining('qmp-agent resume'),
    });
    await expect(stat(`/proc/${pid}`)).rejects.toThrow();
    expect(await readdir(paths.runtimeDir)).toEqual([]);
    expect(await vm.info()).toMatchObject({ state: 'suspended', pid: undefined, cid: undefined });
    expect(JSON.parse(String((await cli('list', '--json')).stdout))).toEqual([
      expect.objectContaining({ name: 'sus', state: 'suspended' }),
    ]);
    const info = await Vm.inspect('sus', { paths });
    expect(Date.now() - Date.parse(info.suspendedAt ?? '')).toBeLessThan(60_000 * SCALE);
    expect(info.suspendedBytes).toBeGreaterThan(50 * 2 ** 20);
    expect(info.suspendedBytes).toBeLessThan(400 * 2 ** 20);
  });

  it.each([
    ['exec', ['exec', 'sus', '--', 'true'], 125],
    ['pause', ['pause', 'sus'], 1],
    ['suspend', ['suspend', 'sus'], 1],
    ['stop', ['stop', 'sus'], 1],
    ['kill', ['kill', 'sus'], 1],
    ['snapshot', ['snapshot', 'create', 'sus'], 1],
    ['qmp', ['qmp', 'sus', 'query-status'], 1],
    ['start', ['start', 'sus'], 1],
  ])('that is suspended refuses %s and says what to do', async (_, args, code) => {
    const { exitCode, stderr } = await cli(...args);
    expect(exitCode).toBe(code);
    expect(stderr).toMatch(/is suspended, not .*\nhint: Resume it: `qmp-agent resume .*--discard/);
  });

  it('comes back after a reboot of the host, and goes on where it was', async () => {
    await rm(paths.runtimeDir, { recursive: true, force: true });
    await Vm.gc({ paths });
    expect((await cli('resume', 'sus')).stdout).toBe('sus');
    expect((await vm.info()).state).toBe('running');
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
    expect(await goesOn()).toBeGreaterThan(10);
    expect(await out('cat /var/tmp/kept /dev/shm/kept; hostname')).toBe('page cache\ntmpfs\nsus');
    const listed = await vm.commands.list();
    expect(listed.map(({ tag }) => tag)).toContain('counter');
    const counter = await vm.commands.connect(listed.find((one) => one.tag === 'counter')!.pid);
    await counter.disconnect();
  });

  it('does so again and again, with its snapshots, and takes no more of the disk', async () => {
    await vm.snapshots.create('before');
    const names = await out('hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id');
    await vm.suspend();
    expect(vm.state).toBe('suspended');
    const bytes = await ourBytes();
    const drawn: string[] = [];
    for (let round = 0; round < 2; round += 1) {
      await vm.resume();
      expect(vm.state).toBe('running');
      drawn.push(await out('head -c 16 /dev/urandom | od -An -tx1'));
      await goesOn();
      await vm.suspend();
      expect(await savedOf()).toHaveLength(1);
    }
    expect(drawn[0]).not.toBe(drawn[1]);
    expect(await ourBytes()).toBeLessThan(bytes + 64 * 2 ** 20);
    await vm.resume();
    expect(await out('hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id')).toBe(names);
    expect((await vm.snapshots.list()).map(({ name }) => name)).toEqual(['before']);
    await vm.snapshots.restore('before');
    await goesOn();
    await vm.snapshots.delete('before');
    const check = await execa('qemu-img', ['check', '-U', filesOf().diskPath], { reject: false });
    expect(check.stdout).toContain('No errors');
  });

  it('that is paused is not suspended', async () => {
    await vm.pause();
    expect(await failureOf(vm.suspend())).toMatchObject({ code: 'ERR_STATE', actual: 'paused' });
    await vm.resume();
    await goesOn();
  });
});

describe.skipIf(obstacle !== undefined)('a VM on a full disk', () => {
  let disk: SmallFilesystem;
  let full: Vm;
  beforeAll(async () => {
    disk = await mountSmall(join(state.box.dir, 'small'), DISK);
    await symlink(join(resolvePaths().dataDir, 'images'), join(disk.dir, 'images'));
    await mkdir(join(disk.dir, 'vms'));
    const options = { paths: { ...state.paths, dataDir: disk.dir }, memoryMib: 256 };
    full = await state.create({ ...options, persistent: true });
    await full.commands.run(COUNTER, { background: true, timeoutMs: 0 });
    // What has run for the first time is noted in its inode, and the journal would be written on a full disk.
    await delay(1_000 * SCALE);
    await full.commands.run(['sync']);
  });
  afterAll(async () => {
    await full?.remove({ force: true });
    await disk?.[Symbol.asyncDispose]();
  });
  const saved = async () =>
    (await readdir(join(disk.dir, 'vms', full.id))).filter((name) => name.startsWith('saved-'));

  it('is refused before anything is touched', async () => {
    await disk.fill();
    const refused = await failureOf(full.suspend());
    expect(refused).toMatchObject({ code: 'ERR_HOST_DISK_FULL', vmId: full.id });
    await disk.free();
    await goesOn(full);
  });

  it('that fills up meanwhile goes on as if nothing had happened', async () => {
    const idle = await full.commands.run('sleep 951', { background: true, timeoutMs: 0 });
    const unsubscribe = events.subscribe((event) => {
      if (event.type !== 'trace.qmp' || !event.line.includes('xen-save-devices-state')) return;
      try {
        writeFileSync(join(disk.dir, 'ballast'), Buffer.alloc(2 ** 30));
      } catch {
        // that was the point
      }
    });
    const error = await failureOf(full.suspend());
    unsubscribe();
    expect(error).toMatchObject({
      code: 'ERR_HOST_DISK_FULL',
      vmId: full.id,
      message: expect.stringContaining('memory cannot be saved'),
      hint: expect.stringContaining('it runs on'),
    });
    expect(await saved()).toEqual([]);
    await disk.free();
    expect((await full.info()).state).toBe('running');
    await goesOn(full);
    await idle.kill(); // the session was never broken
    expect(await idle.wait({ reject: false })).toMatchObject({ signal: 'SIGKILL' });
    await full.suspend();
    await full.resume();
    await goesOn(full);
  });
});

describe('a suspend that fails', () => {
  it('for its time is over, or by its caller, leaves it running too', async () => {
    const late = await failureOf(vm.suspend({ timeoutMs: 20 }));
    expect(late).toMatchObject({ code: 'ERR_TIMEOUT' });
    const caller = new AbortController();
    const unsubscribe = events.subscribe((event) => {
      if (event.type === 'trace.qmp' && event.line.includes('xen-save-devices-state'))
        caller.abort(new Error('no more'));
    });
    expect((await failureOf(vm.suspend({ signal: caller.signal }))).message).toBe('no more');
    unsubscribe();
    await goesOn();
    expect(await savedOf()).toHaveLength(1);
  });
});

describe('a process that is killed', () => {
  it.each([
    ['suspend', 'gpa2hva', 'paused'],
    ['suspend', 'xen-save-devices-state', 'paused'],
    ['suspend', '"quit"', 'suspended'],
    ['resume', 'migrate-incoming', 'suspended'],
    ['resume', '"cont"', 'paused'],
  ] as const)(
    'in the midst of %s (%s) leaves a VM that can be resumed',
    async (verb, words, then) => {
      const before = await count().catch(() => 0);
      if (verb === 'resume' && (await vm.info()).state === 'running') await vm.suspend();
      expect(await dieAt(verb, words)).toMatchObject({ signal: 'SIGKILL' });
      const info = await vm.info();
      expect(info.state).toBe(then);
      if (then === 'paused') expect(info.stateDetail).toMatch(/suspend or resume/);
      if (words === '"quit"') await Vm.gc({ paths });
      if (words === '"quit"') expect(await qemusOf()).toBe('');
      expect((await cli('resume', 'sus')).stderr).toBe('');
      expect(await goesOn()).toBeGreaterThanOrEqual(before);
      expect((await vm.info()).stateDetail).toBeUndefined();
      await Vm.gc({ paths });
      expect((await savedOf()).length).toBeLessThanOrEqual(1);
    },
  );
});

describe('a VM that cannot be resumed', () => {
  it('stays suspended, until what is wrong is mended or its memory given up', async () => {
    await vm.suspend();
    const { recordPath, dir } = filesOf();
    const record = await readFile(recordPath, 'utf8');
    const [name = ''] = await savedOf();
    const other = record.replace(/"qemuVersion": "[^"]*"/, '"qemuVersion": "7.1.0"');
    await writeFile(recordPath, other);
    const mismatch = await failureOf(vm.resume());
    expect(mismatch).toMatchObject({
      code: 'ERR_SUSPEND_MISMATCH',
      message: expect.stringMatching(/with QEMU 7\.1\.0, and this is QEMU /),
      hint: expect.stringContaining('start --discard'),
    });
    await writeFile(recordPath, record);
    const devices = join(dir, name, 'devices');
    const bytes = await readFile(devices);
    await truncate(devices, 1000);
    expect(await failureOf(vm.resume())).toMatchObject({ code: 'ERR_SUSPEND_CORRUPT' });
    await writeFile(devices, bytes);
    const unsubscribe = events.subscribe((event) => {
      if (event.type !== 'trace.qmp' || !event.line.includes('migrate-incoming')) return;
      const { run } = JSON.parse(readFileSync(recordPath, 'utf8')) as { run: VmRun };
      if (run.qemu !== undefined) process.kill(run.qemu.pid, 'SIGKILL');
    });
    expect(await failureOf(vm.resume())).toMatchObject({ code: 'ERR_LAUNCH', vmId: vm.id });
    unsubscribe();
    expect((await vm.info()).state).toBe('suspended');
    await vm.resume();
    await goesOn();
    await vm.suspend();
    expect((await cli('kill', '--discard', 'sus')).stdout).toBe('sus');
    expect(await vm.info()).toMatchObject({ state: 'stopped' });
    expect(await savedOf()).toEqual([]);
  });
});

describe('a clone, on microvm', () => {
  it('is suspended, keeps its template, and goes on', async () => {
    await createTemplate('sus-micro', {
      ...{ paths, timeoutMs: BOOT_MS, machine: 'microvm', memoryMib: 512 },
      warm: `${COUNTER} > /dev/null 2>&1 & sleep 0.2`,
    });
    const store = new TemplateStore(paths);
    const options = { paths, timeoutMs: BOOT_MS, persistent: true, name: 'twin' };
    const clone = await Vm.fromTemplate('sus-micro', options);
    try {
      const names = await out('cat /etc/machine-id; hostname', clone);
      await clone.suspend();
      expect((await failureOf(store.remove('sus-micro'))).message).toContain('in use by twin');
      await clone.resume();
      await goesOn(clone);
      await clone.suspend();
      await clone.resume();
      await goesOn(clone);
      expect(await out('cat /etc/machine-id; hostname', clone)).toBe(names);
      // From its disk, and what was in memory is gone.
      await clone.suspend();
      expect(await failureOf(clone.start())).toMatchObject({ code: 'ERR_STATE' });
      await clone.start({ discard: true, timeoutMs: BOOT_MS });
      expect(await out('ls /dev/shm; hostname', clone)).toBe('twin');
      expect(await savedOf(clone)).toEqual([]);
      await clone.suspend();
      await clone.remove();
      expect(await readdir(join(paths.dataDir, 'vms'))).not.toContain(clone.id);
    } finally {
      await clone.remove({ force: true }).catch(() => undefined);
      await clone.close();
    }
    await store.remove('sus-micro');
  });
});
