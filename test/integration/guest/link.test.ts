/** The way to an agent: who takes which channel, where several ask at once, and where a restore comes between. */
import { once } from 'node:events';
import { mkdtemp, mkdir, rm, symlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileLock } from '../../../src/vm/file-lock.ts';
import { GuestLink } from '../../../src/vm/guest-link.ts';
import { vmPaths, type VmPaths } from '../../../src/vm/vm-paths.ts';
import { SCALE } from '../../scale.ts';
import { LocalAgent } from './local-agent.ts';

const ID = 'feedfeedfeed';
const PORTS = 3;
/** A link has taken a channel by then, and goes on dialling. */
const DIALS_MS = 500 * SCALE;
const o = { timeoutMs: 20_000 * SCALE };
let root: string;
let paths: VmPaths;
let link: GuestLink;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'qa-link-'));
  paths = vmPaths({ dataDir: root, runtimeDir: join(root, 'run'), cacheDir: root }, ID);
  await mkdir(paths.dir, { recursive: true });
  await mkdir(paths.runtimeDir, { recursive: true });
  link = new GuestLink(ID, paths, { kind: 'virtio-serial', ports: PORTS });
});
afterEach(async () => {
  await link.close();
  expect(await taken()).toEqual([]);
  await rm(root, { recursive: true });
});

/** Channels that somebody has. It takes each for an instant: not for while the link looks for one. */
async function taken(): Promise<number[]> {
  const found: number[] = [];
  for (let index = 0; index < PORTS; index += 1) {
    const lock = await FileLock.tryAcquire(paths.channelLockPath(index));
    if (lock === undefined) found.push(index);
    await lock?.release();
  }
  return found;
}

describe('a link to a guest', () => {
  it('has one channel, also where it is reserved and opened at once', async () => {
    const asked = [link.reserve(o), link.open(o), link.reserve(o)] as const;
    asked[1].catch(() => undefined);
    const [first] = await Promise.all([asked[0], asked[2]]);
    expect(await taken()).toHaveLength(1);
    await link.close();
    await expect(asked[1]).rejects.toMatchObject({ code: 'ERR_GUEST_DISCONNECTED' });
    expect(await taken()).toHaveLength(1); // it is reserved
    await first[Symbol.asyncDispose]();
  });

  it('does not keep a channel that could not be reserved, nor take another’s', async () => {
    const others = await Promise.all(
      Array.from({ length: PORTS }, (_, index) => FileLock.acquire(paths.channelLockPath(index))),
    );
    await expect(link.reserve({ timeoutMs: 200 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: expect.stringContaining('a free channel'),
      hint: expect.stringContaining('in use by other processes'),
    });
    await others[1]?.release();
    const reserved = await link.reserve(o);
    expect(await taken()).toEqual([0, 1, 2]);
    await reserved[Symbol.asyncDispose]();
    expect(await taken()).toEqual([0, 2]);
    for (const other of others) await other.release();
  });

  it('that dials when the guest is put back begins anew, on a channel that was free then', async () => {
    await using agent = await LocalAgent.start();
    await (await agent.connect()).close();
    await symlink(agent.target.path, paths.channelSocketPath(1));
    const opening = link.open(o); // nobody answers on the first
    await delay(DIALS_MS);
    expect(await taken()).toEqual([0]);
    await using _channel = await link.reserve(o);
    await link.restored([0]);
    const session = await opening;
    expect(await session.ping()).toBeGreaterThan(0);
    expect(link.channel).toBe(1);
    expect(await taken()).toEqual([1]);
  });

  it('hangs up on a wire that stays silent, and dials anew', async () => {
    await using agent = await LocalAgent.start();
    await using wire = await wireTo(agent, { silent: 1 });
    await link.open(o);
    expect(wire.dials).toBe(2);
  });

  it('hangs up once, after the guest was put back, before it uses a wire', async () => {
    await using agent = await LocalAgent.start();
    await using wire = await wireTo(agent, { silent: 0 });
    await link.open(o);
    expect(wire.dials).toBe(1);
    await using _channel = await link.reserve(o);
    await link.restored([1]);
    const session = await link.open(o);
    expect(await session.ping()).toBeGreaterThan(0);
    expect([wire.dials, link.channel]).toEqual([3, 0]);
  });
});

/** The first channel, as QEMU has it: between us and the agent. */
async function wireTo(
  agent: LocalAgent,
  { silent }: { silent: number },
): Promise<AsyncDisposable & { readonly dials: number }> {
  await (await agent.connect()).close(); // it listens
  let dials = 0;
  const server = createServer((socket) => {
    dials += 1;
    socket.on('error', () => undefined);
    if (dials <= silent) return void socket.resume();
    const onward = connect(agent.target.path).on('error', () => undefined);
    socket.pipe(onward).pipe(socket);
    socket.once('close', () => onward.destroy());
  });
  server.listen(paths.channelSocketPath(0));
  await once(server, 'listening');
  return {
    get dials() {
      return dials;
    },
    [Symbol.asyncDispose]: async () => {
      await link.close();
      server.close();
      await once(server, 'close');
    },
  };
}
