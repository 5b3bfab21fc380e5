/** VMs of a user without any rights, on taps that root has made for him, with a real guest behind them. */
import { copyFile, link, mkdir, readdir, readlink, realpath, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { TrafficRecord } from '../../../src/network/index.ts';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import type { Sandbox } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { processesOf, vmSandbox } from '../cli/host.ts';
import { agentCommand, HOST, LAN, METADATA, WEB, World } from './world.ts';

const NOBODY = 65_534;

let world: World;
let box: Sandbox;

beforeAll(async () => {
  world = await World.create();
  box = await vmSandbox();
  await giveImages();
  const owner = `${NOBODY}:${NOBODY}`;
  await world.run(
    'find',
    box.dir,
    '!',
    '-name',
    'rootfs*',
    '-exec',
    'chown',
    '-h',
    owner,
    '{}',
    '+',
  );
  // Where udev does not see to it, the device is root's alone; here it is any user's.
  const tun = join(world.box.dir, 'tun');
  await world.run('mknod', tun, 'c', '10', '200');
  await world.run('chmod', '666', tun);
  await world.run('mount', '--bind', tun, '/dev/net/tun');
});
afterAll(async () => {
  await agent('remove', '--force', 'one', 'two', 'three').catch(() => undefined);
  expect(await processesOf(box)).toEqual([]);
  expect(await world.agent('setup', 'network', '--undo')).toContain('undone: taps for users');
  const traces = await world.traces();
  expect({ ...traces, services: [] }).toEqual({ taps: [], rules: [], services: [] });
  await vi.waitFor(
    async () => expect(await world.run('ss', '-Hlx')).not.toContain('qmp-agent-taps'),
    {
      timeout: 20_000 * SCALE,
    },
  );
  await world[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

/** The image is the user's own, as files of others cannot be linked to (`fs.protected_hardlinks`); its disk is only read. */
async function giveImages(): Promise<void> {
  const images = join(box.dir, 'data/images');
  const of = await realpath(images);
  await rm(images);
  const id = await readlink(join(of, 'base/current'));
  await mkdir(join(images, 'base', id), { recursive: true });
  await symlink(id, join(images, 'base/current'));
  for (const name of await readdir(join(of, 'base', id))) {
    const [from, to] = [join(of, 'base', id, name), join(images, 'base', id, name)];
    const copied = () => copyFile(from, to);
    await (name.startsWith('rootfs') ? link(from, to).catch(copied) : copied());
  }
}

/** `qmp-agent …` as the user. */
function agent(...args: string[]): Promise<string> {
  const rights = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--'];
  rights.push('env', `TMPDIR=${box.dir}`); // that of the suite is root's
  const own = { ...box, env: { ...box.env, QMP_AGENT_STATE_CACHE_DIR: join(box.dir, 'cache') } };
  return world.run(...rights, ...agentCommand(own, '--log-level', 'error', ...args));
}
const fetched = async (vm: string, ...urls: string[]): Promise<string[]> => {
  const curl = (url: string) => `curl -s -m 10 -o /dev/null -w '%{http_code}\\n' ${url} || true`;
  const text = await agent('exec', vm, '--', 'bash', '-c', urls.map(curl).join('\n'));
  return text.trim().split('\n');
};
const info = async (vm: string) =>
  JSON.parse(await agent('net', 'show', vm, '--json')) as NetworkInfo;

it('without taps made by root they are isolated, and nat-filtered is refused', async () => {
  await expect(agent('create', '--network', 'nat-filtered')).rejects.toThrow(
    'setup network --taps',
  );
  await expect(world.agent('setup', 'network', '--taps', '2')).rejects.toThrow('--user is missing');
  await expect(world.agent('setup', 'network', '--taps', '2', '--user', 'root')).rejects.toThrow(
    'is root',
  );
  await world.agent('setup', 'network', '--taps', '2', '--user', 'nobody');
});

it('a VM reaches the web by name, and neither the host nor the private network; its user reads what it did', async () => {
  await agent('create', '--name', 'one', '-m', '256M');
  expect((await info('one')).mode).toBe('nat-filtered');
  expect((await info('one')).tap).toBe('qmpa1');
  const urls = ['web.test', WEB, LAN, METADATA, HOST, `${WEB}:8080`].map((at) => `http://${at}/`);
  expect(await fetched('one', ...urls)).toEqual(['200', '200', '000', '000', '000', '000']);
  const records = (await agent('net', 'log', 'one', '--json')).trim().split('\n');
  const kinds = new Set(records.map((line) => (JSON.parse(line) as TrafficRecord).kind));
  expect(kinds).toContain('dns');
  expect(kinds).toContain('connection');
  expect(kinds).toContain('denied');
  await expect(agent('net', 'allow', 'one', '--allow-cidr', LAN)).rejects.toThrow(
    'the default one',
  );
  await expect(agent('create', '--no-public')).rejects.toThrow('a policy of its own');
  await expect(agent('net', 'capture', 'one', '--duration', '5s')).rejects.toThrow(
    'may not capture packets',
  );
});

it('a VM that is resumed has another tap, where another VM has its own by now', async () => {
  await agent('suspend', 'one');
  await agent('create', '--name', 'two', '-m', '256M');
  await agent('resume', 'one');
  expect([(await info('two')).tap, (await info('one')).tap]).toEqual(['qmpa1', 'qmpa2']);
  for (const vm of ['one', 'two']) expect(await fetched(vm, 'http://web.test/')).toEqual(['200']);
  await expect(agent('create', '--network', 'nat-filtered')).rejects.toThrow('are taken');
  await expect(world.agent('setup', 'network', '--undo')).rejects.toThrow('qmpa1, qmpa2');
  expect(await agent('net', 'log', 'one')).toContain(LAN); // of before it was suspended
});

it('what a VM that ends by itself did stays on record, whose tap is another’s by then, and when it starts anew', async () => {
  expect(await fetched('two', `http://${METADATA}/`)).toEqual(['000']);
  const { pid } = (JSON.parse(await agent('inspect', 'two')) as { pid: number }[])[0]!;
  process.kill(pid, 'SIGKILL');
  const isUp = async () => (await world.run('ip', 'link', 'show', 'qmpa1')).includes(',UP');
  await vi.waitFor(async () => expect(await isUp()).toBe(false), { timeout: 20_000 * SCALE });
  await agent('create', '--name', 'three', '-m', '256M');
  expect((await info('three')).tap).toBe('qmpa1');
  const denied = async () =>
    (await agent('net', 'log', 'two')).split('\n').filter((line) => line.includes(METADATA));
  const [line] = await denied();
  expect(line).toContain('denied');
  await agent('remove', '--force', 'three');
  await agent('start', 'two');
  expect(await denied()).toEqual([line]);
});
