/** What dead processes leave, found by pid and start time; what living ones have is left alone. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileLock } from '../../../src/vm/file-lock.ts';
import { findQemus } from '../../../src/vm/gc.ts';
import {
  identify,
  isAlive,
  ownIdentity,
  type ProcessIdentity,
} from '../../../src/vm/process-identity.ts';
import { writeRecord, type VmRecord } from '../../../src/vm/record.ts';
import { ensureStateDirs, STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { vmPaths, vmsDir } from '../../../src/vm/vm-paths.ts';
import { Vm } from '../../../src/vm/vm.ts';

const ID = 'aaaaaaaaaaaa';
let paths: { dataDir: string; runtimeDir: string; cacheDir: string };
const children: ChildProcess[] = [];

beforeEach(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-gc-'));
  paths = { dataDir: join(dir, 'data'), runtimeDir: join(dir, 'run'), cacheDir: join(dir, 'c') };
  await ensureStateDirs(paths);
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await rm(join(paths.dataDir, '..'), { recursive: true });
});

function started(child: ChildProcess): ProcessIdentity {
  children.push(child);
  const identity = child.pid === undefined ? undefined : identify(child.pid);
  if (identity === undefined) throw new Error('the process did not start');
  return identity;
}

/** A process that has nothing to do with VMs. */
const bystander = () => started(spawn('sleep', ['600'], { stdio: 'ignore' }));

/** A QEMU without a guest, named as that of a VM. */
function qemu(id: string, dir = vmsDir(paths)): ProcessIdentity {
  const log = `file,id=c,path=/dev/null,logfile=${dir}/${id}/console.log`;
  const argv = ['-nodefaults', '-display', 'none', '-machine', 'none', '-S'];
  const name = ['-name', `qmp-agent-${id}`];
  const words = [...argv, ...name, '-chardev', log];
  return started(spawn('qemu-system-x86_64', words, { stdio: 'ignore' }));
}

/** One whose VM's directory is gone. QEMU needs it only until its log is open. */
async function qemuWithoutVm(dir: string): Promise<ProcessIdentity> {
  await mkdir(join(dir, ID), { recursive: true });
  const identity = qemu(ID, dir);
  await expect.poll(() => readdir(join(dir, ID))).toEqual(['console.log']);
  await rm(join(dir, ID), { recursive: true });
  return identity;
}

/** One that is no more: its pid is another's now. */
const replaced = (now: ProcessIdentity) => ({ ...now, startTicks: now.startTicks - 1 });

async function vmOnDisk(id: string, o: Partial<VmRecord>): Promise<void> {
  const files = vmPaths(paths, id);
  await mkdir(files.dir, { recursive: true });
  await mkdir(files.runtimeDir, { recursive: true });
  await writeRecord(files, {
    schema: STATE_SCHEMA,
    id,
    createdAt: '2026-01-01T00:00:00.000Z',
    state: 'running',
    config: {
      image: 'base',
      imageId: 'x',
      rootfsPath: '/nowhere/rootfs.qcow2',
      vcpus: 1,
      memoryMib: 512,
      diskBytes: 1,
      accel: 'auto',
      machine: 'q35',
      channel: 'virtio-serial',
      hostname: id,
      kernelArgs: [],
      qemuPath: 'qemu-system-x86_64',
      persistent: o.owner === undefined,
    },
    ...o,
  });
}

const run = (processes: { starter: ProcessIdentity; qemu?: ProcessIdentity }) =>
  ({ ...processes, startedAt: 't', accel: 'tcg', ports: 1 }) as const;

/** Makes a file old enough for nobody to be in the midst of making it. */
async function age(path: string): Promise<void> {
  const anHourAgo = new Date(Date.now() - 3_600_000);
  await utimes(path, anHourAgo, anHourAgo);
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

describe('an ephemeral VM', () => {
  it('whose owner’s pid is another’s now is reaped; so is not who has QEMU’s pid now', async () => {
    const [owner, other] = [bystander(), bystander()];
    const processes = { starter: replaced(owner), qemu: replaced(other) };
    await vmOnDisk(ID, { owner: replaced(owner), run: run(processes) });
    expect(await Vm.list({ paths })).toEqual([]);
    expect(await readdir(join(paths.dataDir, 'vms'))).toEqual([]);
    expect(await readdir(paths.runtimeDir)).toEqual([]);
    expect([owner, other].map(isAlive)).toEqual([true, true]);
  });

  it('whose owner lives is left alone', async () => {
    const own = ownIdentity();
    await vmOnDisk(ID, { owner: own, run: run({ starter: own, qemu: qemu(ID) }) });
    await age(vmPaths(paths, ID).dir);
    expect(await Vm.gc({ paths })).toEqual([]);
    expect(await Vm.list({ paths })).toMatchObject([{ id: ID, state: 'running' }]);
  });

  it('whose owner is gone takes its QEMU with it', async () => {
    const left = qemu(ID);
    const gone = replaced(ownIdentity());
    await vmOnDisk(ID, { owner: gone, run: run({ starter: gone, qemu: left }) });
    const reaped = await Vm.gc({ paths });
    expect(reaped.map(({ kind }) => kind)).toEqual(['process', 'socket', 'vm']);
    expect(isAlive(left)).toBe(false);
  });

  it('whose owner died before it could write QEMU’s pid down: found by its name', async () => {
    const owner = replaced(ownIdentity());
    await vmOnDisk(ID, { owner, state: 'starting' });
    const left = qemu(ID);
    await expect.poll(() => findQemus(ID)).toEqual([left]);
    expect(await Vm.list({ paths })).toEqual([]);
    expect(isAlive(left)).toBe(false);
  });

  it('is reaped by two at once', async () => {
    const owner = replaced(ownIdentity());
    await vmOnDisk(ID, { owner, run: run({ starter: owner, qemu: qemu(ID) }) });
    const both = await Promise.all([Vm.gc({ paths }), Vm.gc({ paths }), Vm.list({ paths })]);
    expect(both[2]).toEqual([]);
    expect(await readdir(join(paths.dataDir, 'vms'))).toEqual([]);
  });
});

describe('a VM that stays', () => {
  it('keeps its disk, and loses the sockets of a QEMU that is gone', async () => {
    const gone = replaced(ownIdentity());
    await vmOnDisk(ID, { run: run({ starter: gone, qemu: gone }) });
    const files = vmPaths(paths, ID);
    await writeFile(files.diskPath, 'disk');
    await writeFile(files.qmpSocketPath, '');
    expect(await Vm.gc({ paths })).toEqual([]); // too young to be sure
    await age(files.runtimeDir);
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'socket', path: files.runtimeDir }]);
    expect(await exists(files.diskPath)).toBe(true);
    expect(await Vm.list({ paths })).toMatchObject([
      { id: ID, state: 'stopped', stateDetail: 'QEMU is gone' },
    ]);
  });

  it('loses what a writer left that was killed in the midst', async () => {
    await vmOnDisk(ID, { state: 'stopped' });
    const { recordPath } = vmPaths(paths, ID);
    const [old, young] = [`${recordPath}.0a0a0a0a.tmp`, `${recordPath}.0b0b0b0b.tmp`];
    for (const path of [old, young]) await writeFile(path, '{');
    await age(old);
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'temp', path: old }]);
    expect(await exists(young)).toBe(true);
  });
});

describe('a start whose process was killed before it wrote QEMU down', () => {
  it('of a VM that nobody was told of: QEMU and record go', async () => {
    await vmOnDisk(ID, { state: 'starting' });
    const left = qemu(ID);
    await expect.poll(() => findQemus(ID)).toEqual([left]);
    const lock = await FileLock.acquire(vmPaths(paths, ID).lockPath);
    expect(await Vm.gc({ paths })).toEqual([]); // somebody is at it
    await lock.release();
    const reaped = await Vm.gc({ paths });
    expect(reaped.map(({ kind }) => kind)).toEqual(['process', 'socket', 'vm']);
    expect(isAlive(left)).toBe(false);
    expect(await Vm.list({ paths })).toEqual([]);
  });

  it('of a VM that was there: QEMU goes, the VM stays', async () => {
    const gone = replaced(ownIdentity());
    await vmOnDisk(ID, { state: 'stopped', run: run({ starter: gone, qemu: gone }) });
    const left = qemu(ID);
    await expect.poll(() => findQemus(ID)).toEqual([left]);
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'process', path: `pid ${left.pid}` }]);
    expect(isAlive(left)).toBe(false);
    expect(await Vm.list({ paths })).toMatchObject([{ id: ID, state: 'stopped' }]);
  });
});

describe('what has no record', () => {
  it.each<[string, string | undefined]>([
    ['a directory without one', undefined],
    ['a directory with half of one', '{"schema":1,'],
    ['a directory with something else', 'null'],
  ])('%s: removed once it is old', async (_what, content) => {
    const files = vmPaths(paths, ID);
    await mkdir(files.dir);
    if (content !== undefined) await writeFile(files.recordPath, content);
    expect(await Vm.gc({ paths })).toEqual([]);
    await age(files.dir);
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'vm', path: files.dir }]);
  });

  it('a directory that somebody is about to fill: he holds its lock', async () => {
    const files = vmPaths(paths, ID);
    await mkdir(files.dir);
    const lock = await FileLock.acquire(files.lockPath);
    await age(files.dir);
    expect(await Vm.gc({ paths })).toEqual([]);
    await lock.release();
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'vm', path: files.dir }]);
  });

  it('sockets without a VM', async () => {
    const { runtimeDir } = vmPaths(paths, ID);
    await mkdir(runtimeDir);
    await mkdir(join(paths.runtimeDir, 'of-somebody-else'));
    expect(await Vm.gc({ paths })).toEqual([]);
    await age(runtimeDir);
    await age(join(paths.runtimeDir, 'of-somebody-else'));
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'dir', path: runtimeDir }]);
  });

  it('a QEMU of ours without a VM; one of another state directory is not ours', async () => {
    const another = join(paths.dataDir, '..', 'another', 'vms');
    const ours = await qemuWithoutVm(vmsDir(paths));
    const theirs = await qemuWithoutVm(another);
    expect(await findQemus(ID)).toHaveLength(2);
    expect(await Vm.gc({ paths })).toEqual([{ kind: 'process', path: `pid ${ours.pid}` }]);
    expect(isAlive(theirs)).toBe(true);
  });
});
