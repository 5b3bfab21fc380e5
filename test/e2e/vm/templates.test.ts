/** Templates and their clones: machines of their own, from one frozen instant. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, cp, mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';

/** How far a clock may be off that was set right: the way there, on a busy machine. */
const CLOCK_MS = 2_000 * SCALE;
const CLONES = 3;
/** Notes again and again which boot it is in, and when: runs in the template, and on in each clone. */
const WITNESS =
  'nohup sh -c \'while :; do echo "$(date +%s%3N) $(cat /proc/sys/kernel/random/boot_id)"; sleep 0.05; done\' > /tmp/witness 2>&1 &';

const state = useTestState();
let store: TemplateStore;

const cli = (...args: string[]) =>
  qmpAgent(args, {
    env: { ...state.box.env, QMP_AGENT_LOG_LEVEL: 'error' },
    timeoutMs: BOOT_MS,
  });
const clone = (name = 'plain') => Vm.fromTemplate(name, { paths: state.paths, timeoutMs: BOOT_MS });
const out = async (vm: Vm, command: string): Promise<string> =>
  (await vm.commands.run(command)).stdout.trim();
const filesOf = (name: string) => {
  const dir = store.dirOf(name);
  return {
    memory: join(dir, 'memory'),
    disk: join(dir, 'disk.qcow2'),
    devices: join(dir, 'devices'),
  };
};
const hashOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
};
/** A broken copy of the template `plain`. */
const copyOf = async (name: string): Promise<ReturnType<typeof filesOf>> => {
  await cp(store.dirOf('plain'), store.dirOf(name), { recursive: true });
  return filesOf(name);
};

beforeAll(async () => {
  store = new TemplateStore(state.paths);
  const script = join(state.box.dir, 'provision.sh');
  await writeFile(script, 'echo provisioned by $(id -un) > /var/tmp/provisioned\n');
  const made = await cli(
    ...['template', 'create', 'plain', '-m', '512M', '--provision', script],
    ...['--warm', `${WITNESS} python3 -c 0`],
  );
  expect(made).toMatchObject({ exitCode: 0, stdout: 'plain' });
});

describe('a clone', () => {
  it('is a machine of its own, and the template stays as it is', async () => {
    const files = filesOf('plain');
    const before = [await hashOf(files.memory), await hashOf(files.disk)];
    const facts = async (vm: Vm) => {
      const lines = await out(
        vm,
        'hostname; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | od -An -tx1 -w32; cat /proc/sys/kernel/random/uuid; python3 -c "import os; print(os.getrandom(16).hex())"',
      );
      const offMs = Math.abs(Number(await out(vm, 'date +%s%3N')) - Date.now());
      return { lines: lines.split('\n'), offMs };
    };
    const vms = await Promise.all(Array.from({ length: CLONES }, () => clone()));
    try {
      const all = await Promise.all(vms.map(facts));
      for (const [index, { lines, offMs }] of all.entries()) {
        expect(lines.slice(0, 2)).toEqual([vms[index]?.id, vms[index]?.id]);
        expect(offMs).toBeLessThan(CLOCK_MS);
      }
      const distinct = new Set(all.flatMap(({ lines }) => lines.slice(1)));
      expect(distinct.size).toBe(CLONES * 6);
      for (const vm of vms) {
        expect(await out(vm, 'cat /var/tmp/provisioned')).toBe('provisioned by root');
        await vm.commands.run('head -c 40M /dev/urandom > /var/tmp/junk; sync', { user: 'root' });
      }
      expect([...(await store.inspect('plain')).usedBy].sort()).toEqual(
        vms.map(({ id }) => id).sort(),
      );
    } finally {
      await Promise.all(vms.map((vm) => vm.close()));
    }
    expect([await hashOf(files.memory), await hashOf(files.disk)]).toEqual(before);
  });

  it('is one before anything that ran in the template goes on', async () => {
    const called = Date.now();
    await using vm = await clone();
    const own = await out(vm, 'cat /proc/sys/kernel/random/boot_id');
    await vm.commands.run('sleep 0.3');
    const notes = (await out(vm, 'cat /tmp/witness')).split('\n').map((line) => line.split(' '));
    const later = notes.filter(([ms]) => Number(ms) >= called);
    expect(later.length).toBeGreaterThan(1);
    expect(new Set(later.map(([, id]) => id))).toEqual(new Set([own]));
    expect(notes.some(([, id]) => id !== own)).toBe(true); // it did run in the template
  });

  it('that stays keeps its disk over a cold start, and its template', async () => {
    const made = await cli('clone', 'plain', '--name', 'stays');
    expect(made.exitCode).toBe(0);
    const id = String(made.stdout);
    await using vm = await Vm.connect('stays', state);
    await vm.commands.run('echo mine > /var/tmp/mine');
    expect((await failureOf(store.remove('plain'))).message).toContain('in use by stays');
    await vm.stop();
    await vm.start({ timeoutMs: BOOT_MS });
    expect(await out(vm, 'cat /var/tmp/mine /var/tmp/provisioned; hostname')).toBe(
      'mine\nprovisioned by root\nstays',
    );
    await vm.remove({ force: true });
    expect((await Vm.list(state)).map((info) => info.id)).not.toContain(id);
  });

  it('runs one command, and is gone', async () => {
    const ran = await cli('run', '--template', 'plain', '--', 'cat', '/var/tmp/provisioned');
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'provisioned by root' });
    expect(await Vm.list(state)).toEqual([]);
  });

  it('can be taken from snapshot to snapshot like any VM', async () => {
    await using vm = await clone();
    await vm.commands.run('echo one > /var/tmp/n');
    await vm.snapshots.create('one');
    await vm.commands.run('echo two > /var/tmp/n');
    await vm.snapshots.restore('one');
    expect(await out(vm, 'cat /var/tmp/n')).toBe('one');
  });
});

describe('a template', () => {
  it('is listed with what it is', async () => {
    const { stdout } = await cli('template', 'list', '--json');
    expect(JSON.parse(String(stdout))).toEqual([
      expect.objectContaining({ name: 'plain', image: 'base', memoryMib: 512, usedBy: [] }),
    ]);
    expect((await cli('template', 'list', '-q')).stdout).toBe('plain');
    expect((await cli('template', 'list')).stdout).toMatch(/^NAME +IMAGE/);
  });

  it('keeps its image from being removed', async () => {
    const [info] = await store.list();
    const { manifest } = await store.get('plain');
    expect(info?.image).toBe('base');
    expect(await store.onImage(dirname(manifest.config.rootfsPath))).toEqual(['plain']);
  });

  it.each([
    ['a name that is taken', ['create', 'plain'], /already[^]*--force/],
    ['a name that cannot be', ['create', '../x'], /not a template name/],
    [
      'a script that is not there',
      ['create', 'x', '--provision', '/no/such'],
      /--provision|\/no\/such/,
    ],
    ['removing one that is not there', ['remove', 'none'], /no template "none"/],
  ])('is refused for %s', async (_, args, message) => {
    const { exitCode, stderr } = await cli('template', ...args);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(message);
  });

  it('that is not whole is not used', async () => {
    const flipped = await copyOf('flipped');
    const bytes = await readFile(flipped.devices);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    await chmod(flipped.devices, 0o600);
    await writeFile(flipped.devices, bytes);
    const cut = await copyOf('cut');
    await chmod(cut.memory, 0o600);
    await truncate(cut.memory, 1024);
    for (const name of ['flipped', 'cut']) {
      expect(await failureOf(clone(name))).toMatchObject({ code: 'ERR_TEMPLATE_CORRUPT' });
      await store.remove(name);
    }
    expect(await failureOf(clone('none'))).toMatchObject({ code: 'ERR_NOT_FOUND' });
  });

  it('of another QEMU is refused, and says of which', async () => {
    await copyOf('older');
    const path = join(store.dirOf('older'), 'template.json');
    const manifest = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...manifest, name: 'older', qemuVersion: '7.1.0' }));
    const error = await failureOf(clone('older'));
    expect(error).toMatchObject({ code: 'ERR_TEMPLATE_MISMATCH' });
    expect(error.message).toMatch(/made with QEMU 7\.1\.0, and this is QEMU /);
    await store.remove('older');
  });

  it('leaves nothing where its script fails', async () => {
    const options = { paths: state.paths, timeoutMs: BOOT_MS, memoryMib: 512 };
    const made = createTemplate('broken', { ...options, provision: 'false' });
    expect(await failureOf(made)).toMatchObject({ code: 'ERR_COMMAND_EXIT' });
    expect((await store.list()).map(({ name }) => name)).toEqual(['plain']);
    expect(await Vm.list(state)).toEqual([]);
  });

  it('whose clones cannot be made their own gives none, on microvm too', async () => {
    const options = { paths: state.paths, timeoutMs: BOOT_MS, machine: 'microvm' as const };
    // A directory where the machine's id belongs: what renews it fails, after the entropy and the clock.
    const provision = 'rm -f /etc/machine-id; mkdir /etc/machine-id';
    await createTemplate('stuck', { ...options, provision });
    const error = await failureOf(clone('stuck'));
    expect(error).toMatchObject({ code: 'ERR_GUEST_CONNECT' });
    expect(error.message).toContain('a machine of its own');
    expect(await Vm.list(state)).toEqual([]);
    await createTemplate('stuck', { ...options, replace: true });
    await using vm = await clone('stuck');
    expect(await out(vm, 'hostname')).toBe(vm.id);
  });

  it('that a dead process left half made is cleaned up, and not one that is being made', async () => {
    await using open = await store.openWorkshop('0123456789ab');
    const dead = join(dirname(open.dir), '.ba9876543210.tmp');
    await mkdir(dead);
    await writeFile(join(dead, 'memory'), 'half');
    expect(await Vm.gc(state)).toEqual([{ kind: 'temp', path: dead }]);
  });

  it('can be removed when nobody stands on it', async () => {
    expect(await cli('template', 'rm', 'plain', 'stuck')).toMatchObject({ exitCode: 0 });
    expect(await store.list()).toEqual([]);
  });
});
