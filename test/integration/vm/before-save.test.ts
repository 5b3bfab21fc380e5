/** What a guest is asked for before its state is saved, by the real agent; it may not touch the clock of this host. */
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { events } from '../../../src/events.ts';
import type { Accel } from '../../../src/vm/api.ts';
import { prepareToBeSaved } from '../../../src/vm/before-save.ts';
import { FileLock } from '../../../src/vm/file-lock.ts';
import { GuestLink } from '../../../src/vm/guest-link.ts';
import type { LiveVm } from '../../../src/vm/live-vm.ts';
import { vmPaths, type VmPaths } from '../../../src/vm/vm-paths.ts';
import { SCALE } from '../../scale.ts';
import { LocalAgent } from '../guest/local-agent.ts';

const ID = 'feedfeedfeed';
const PORTS = 2;
const o = { timeoutMs: 20_000 * SCALE };
/** So the rehearsal fails, as the first thing that it asks for is refused. */
const NO_CLOCK = ['setpriv', '--bounding-set', '-sys_time'];

let root: string;
let paths: VmPaths;
let agent: LocalAgent;
let links: GuestLink[];
/** What the agent is asked for. */
let asked: string[];
let unfollow: () => void;

const newLink = () => {
  const link = new GuestLink(ID, paths, { kind: 'virtio-serial', ports: PORTS });
  links.push(link);
  return link;
};
/** Of a machine, what is asked for. */
const live = (accel: Accel) => {
  const fault = new AbortController().signal;
  const machine = { run: { accel }, link: newLink(), anotherLink: newLink, watch: { fault } };
  return machine as unknown as LiveVm;
};
/** QEMU, which is never asked: a rehearsal that fails does not get so far. */
const client = {} as QmpClient;
const prepare = (accel: Accel, more: { signal?: AbortSignal } = {}) =>
  prepareToBeSaved({ vmId: ID, live: live(accel), client }, { ...o, ...more });

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'qa-save-'));
  paths = vmPaths({ dataDir: root, runtimeDir: join(root, 'run'), cacheDir: root }, ID);
  await mkdir(paths.dir, { recursive: true });
  await mkdir(paths.runtimeDir, { recursive: true });
  agent = await LocalAgent.start(undefined, NO_CLOCK);
  await (await agent.connect()).close(); // it listens
  for (let index = 0; index < PORTS; index += 1)
    await symlink(agent.target.path, paths.channelSocketPath(index));
  [links, asked] = [[], []];
  events.enableTraces(['agent']);
  unfollow = events.subscribe((event) => {
    if (event.type !== 'trace.agent' || event.direction !== 'out') return;
    asked.push(/^\w+ \S+/.exec(event.line)?.[0] ?? event.line);
  });
});
afterEach(async () => {
  unfollow();
  for (const link of links) await link.close();
  await agent[Symbol.asyncDispose]();
  await rm(root, { recursive: true });
});

it('rehearses where the processor is emulated, and goes on where that fails', async () => {
  await prepare('tcg');
  expect(asked).toEqual(expect.arrayContaining(['POST /entropy', 'POST /clock']));
  expect(asked).not.toContain('POST /execs');
  expect(asked.at(-1)).toBe('POST /sync');
  // Its own link has given back its channel.
  expect(links.map(({ channel }) => channel)).toEqual([0, undefined]);
});

it('does not where it is not', async () => {
  await prepare('kvm');
  expect(asked).toEqual(['GET /ping', 'POST /sync']);
  expect(links).toHaveLength(1);
});

it('goes on where others have all channels, and does nothing to the guest', async () => {
  const others = await Promise.all(
    [0, 1].map((index) => FileLock.acquire(paths.channelLockPath(index))),
  );
  await prepareToBeSaved({ vmId: ID, live: live('tcg'), client }, { timeoutMs: 300 });
  expect(asked).toEqual([]);
  for (const other of others) await other.release();
});

it('ends where it is given up, with the reason', async () => {
  const reason = new Error('given up');
  await expect(prepare('tcg', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect(asked).toEqual([]);
});
