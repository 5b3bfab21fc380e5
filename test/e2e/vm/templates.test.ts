/** Templates on disk, and the way to them by the command line; see `clones.test.ts`. */
import { chmod, cp, mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';

/** For a clone that will never answer. */
const DEAD_MS = 6_000 * SCALE;

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
    ...['--warm', 'python3 -c 0'],
  );
  expect(made).toMatchObject({ exitCode: 0, stdout: 'plain' });
});

describe('a clone', () => {
  it('that stays keeps its disk over a cold start, and its template', async () => {
    const made = await cli('clone', 'plain', '--name', 'stays', '--paused');
    expect(made.exitCode).toBe(0);
    const id = String(made.stdout);
    expect(await Vm.inspect(id, state)).toMatchObject({ state: 'paused' });
    expect(await cli('resume', 'stays')).toMatchObject({ exitCode: 0 });
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
    const info = await store.inspect('plain');
    const { manifest } = await store.get('plain');
    expect(info.image).toBe('base');
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

  it('whose clones do not come to life gives none', async () => {
    const { memory } = await copyOf('dead');
    const { size } = await stat(memory);
    await truncate(memory, 0);
    await truncate(memory, size); // as long as it was, and all zeros
    const made = Vm.fromTemplate('dead', { paths: state.paths, timeoutMs: DEAD_MS });
    expect(await failureOf(made)).toMatchObject({ code: expect.stringMatching(/^ERR_/) });
    expect(await Vm.list(state)).toEqual([]);
    await store.remove('dead');
  });

  it('is not made of a guest that cannot become another, and is on microvm', async () => {
    const options = { paths: state.paths, timeoutMs: BOOT_MS, machine: 'microvm' as const };
    // A directory where the machine's id belongs.
    const provision = 'rm -f /etc/machine-id; mkdir /etc/machine-id';
    expect(await failureOf(createTemplate('micro', { ...options, provision }))).toMatchObject({
      code: 'ERR_GUEST_REQUEST',
      message: expect.stringContaining('/etc/machine-id'),
    });
    expect(await Vm.list(state)).toEqual([]);
    await createTemplate('micro', options);
    await using vm = await clone('micro');
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
    expect(await cli('template', 'rm', 'plain', 'micro')).toMatchObject({ exitCode: 0 });
    expect(await store.list()).toEqual([]);
  });
});
