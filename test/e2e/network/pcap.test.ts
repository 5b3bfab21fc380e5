/** Captures of a real guest's packets: from its first one, of what is denied as well, and to their ends. */
import { once } from 'node:events';
import type { ChildProcess } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { TestContext } from 'vitest';
import { GATEWAY_MAC } from '../../../src/network/endpoint.ts';
import { parseIp } from '../../../src/network/traffic/nflog.ts';
import { PcapReader, type PcapPacket } from '../../../src/network/traffic/pcap.ts';
import { identify } from '../../../src/vm/process-identity.ts';
import { SCALE } from '../../scale.ts';
import type { Capture } from './capture.ts';
import { LAN, WEB, World } from './world.ts';

/** No rule lets it through: its sender's MAC address is not the VM's, nor its receiver's the tap's. */
const SPOOF = `
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
s.send(bytes.fromhex('02ee0000000902ee000000080800') + b'SPOOFED')`;

let world: World;
let upstream: Capture;
let tries = 0;
beforeEach(() => void (tries += 1));
beforeAll(async () => {
  world = await World.create();
  upstream = await world.capture();
  await world.agent('setup', 'network');
});
afterAll(async () => {
  await world.agent('remove', '--force', 'box').catch(() => undefined); // the tests that do may not have run
  await upstream[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

const path = (name: string) => join(world.box.dir, name);
/** A file of this try's own: none is written to twice. */
const fresh = (name: string) => `${tries}-${name}`;
const isRetry = ({ task }: TestContext) => (task.result?.retryCount ?? 0) > 0;
const packetsOf = (bytes: Buffer): PcapPacket[] => new PcapReader().push(bytes);
const packetsIn = async (name: string) => packetsOf(await readFile(path(name)));
/** `tcp 10.1.2.3:80`, as the guest sent it. */
const sentTo = (packets: readonly PcapPacket[]) =>
  new Set(
    packets
      .map(({ data }) => parseIp(data.subarray(14)))
      .map((ip) => `${ip?.protocol} ${ip?.to}:${ip?.toPort}`),
  );
const waitFor = (holds: () => Promise<void>) =>
  vi.waitFor(holds, { timeout: 15_000 * SCALE, interval: 100 });
/** The tcpdump processes that listen to interfaces of the host. */
const listening = async () =>
  [...(await world.run('ss', '-0', '-p', '-n')).matchAll(/"tcpdump",pid=(\d+)/g)].map(([, pid]) =>
    identify(Number(pid)),
  );

/** A command that captures by now. */
class Running {
  readonly child: ChildProcess;
  readonly chunks: Buffer[] = [];
  stderr = '';
  readonly ended: Promise<{ code: number | null; stderr: string; stdout: Buffer }>;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout!.on('data', (chunk: Buffer) => this.chunks.push(chunk));
    child.stderr!.on('data', (text: Buffer) => (this.stderr += text.toString()));
    this.ended = once(child, 'close').then(([code]) => ({
      code: code as number | null,
      stderr: this.stderr,
      stdout: Buffer.concat(this.chunks),
    }));
  }

  static async capture(...args: string[]): Promise<Running> {
    const running = new Running(world.startWith('pipe', 'net', 'capture', 'box', ...args));
    await waitFor(() => Promise.resolve(expect(running.stderr).toContain('capturing box')));
    return running;
  }
}

describe('run --pcap', () => {
  let run: Running;
  let first: string;
  let packets: PcapPacket[];

  it('captures from the first packet of the guest on, and what is denied', async (context) => {
    if (isRetry(context)) await world.agent('remove', '--force', 'box').catch(() => undefined);
    first = fresh('first.pcap');
    const wait = 'echo ready; until [ -e /tmp/go ]; do sleep 0.1; done';
    const own = ['--keep', '--name', 'box', '-m', '256M', '--network', 'nat-filtered'];
    const options = [...own, '--pcap', path(first)];
    run = new Running(world.startWith('pipe', 'run', ...options, '--', 'bash', '-c', wait));
    await Promise.race([once(run.child.stdout!, 'data'), run.ended]);
    expect(run.stderr).toBe('');
    const [{ pid }] = JSON.parse(await world.agent('inspect', 'box')) as [{ pid: number }];
    const [tcpdump] = await listening();
    expect(tcpdump?.startTicks).toBeLessThan(identify(pid)?.startTicks ?? 0);
    const got = await world.fetched('box', 'http://web.test/', `http://${LAN}/`);
    expect(got).toEqual([`${WEB}:80`, 'failed 7']);
    await world.agent('exec', '-u', 'root', 'box', '--', 'python3', '-c', SPOOF);
    const { tap } = await world.info('box');
    const gateway = Buffer.from(GATEWAY_MAC.replaceAll(':', ''), 'hex');
    // The kernel has counted all that has passed the tap since it was made.
    await waitFor(async () => {
      const link = JSON.parse(await world.run('ip', '-json', '-stats', 'link', 'show', tap!)) as [
        { stats64: Record<'rx' | 'tx', { packets: number }> },
      ];
      packets = await packetsIn(first);
      const toGuest = packets.filter(({ data }) => data.subarray(6, 12).equals(gateway));
      expect({
        fromGuest: packets.length - toGuest.length,
        toGuest: toGuest.length,
      }).toEqual({
        fromGuest: link[0].stats64.rx.packets,
        toGuest: link[0].stats64.tx.packets,
      });
      expect(packets.some(({ data }) => data.includes('SPOOFED'))).toBe(true);
    });
    expect([...sentTo(packets)]).toEqual(
      expect.arrayContaining([`tcp ${WEB}:80`, `tcp ${LAN}:80`]),
    );
  });

  it('though none of the latter leaves the host, and all is on record', async () => {
    const denied = await world.records('box', 'denied');
    expect(denied).toContainEqual(expect.objectContaining({ kind: 'denied', to: LAN }));
    const left = new Set(upstream.arrivals.map(({ data }) => parseIp(data.subarray(14))?.to));
    expect(left).toContain(WEB);
    expect(left).not.toContain(LAN);
    expect(upstream.holding('SPOOFED')).toEqual([]);
  });

  it('ends with the command, and is for its owner alone', async () => {
    await world.bash('box', 'touch /tmp/go');
    expect(await run.ended).toMatchObject({ code: 0 });
    expect(await listening()).toEqual([]);
    expect((await stat(path(first))).mode & 0o777).toBe(0o600);
  });

  it('is refused where there is nothing to capture, and nothing is left', async () => {
    const isolated = ['--network', 'isolated', '--pcap', path('none.pcap')];
    const child = new Running(world.startWith('pipe', 'run', ...isolated, '--', 'true'));
    const { code, stderr } = await child.ended;
    expect([code, stderr]).toEqual([125, expect.stringContaining('--network nat-filtered')]);
    await expect(stat(path('none.pcap'))).rejects.toThrow('ENOENT');
    expect(JSON.parse(await world.agent('list', '--all', '--json'))).toHaveLength(1);
  });
});

describe('net capture', () => {
  const withVm = { code: 0, stderr: expect.stringContaining('the VM has ended') as string };
  const sayingHow = { code: 0, stderr: expect.stringContaining('--follow waits') as string };
  let suspendedMs: number;
  /** They go on over several tests. */
  const going: Partial<Record<'followed' | 'resumed', { running: Running; file: string }>> = {};
  const captures = new Set<Running>();
  const capture = async (...args: string[]) => {
    const running = await Running.capture(...args);
    captures.add(running);
    return running;
  };
  const goOn = async (name: keyof typeof going, ...args: string[]) => {
    going[name]?.running.child.kill('SIGKILL'); // of an earlier try
    const file = fresh(`${name}.pcap`);
    going[name] = { running: await Running.capture('-o', path(file), ...args), file };
  };
  const endAll = (all: Iterable<Running>) => {
    for (const { child } of all) child.kill('SIGKILL');
  };
  afterEach(() => {
    endAll(captures);
    captures.clear();
  });
  afterAll(() => endAll(Object.values(going).map(({ running }) => running)));

  it('writes to a pipe, and ends well with Ctrl-C', async () => {
    const piped = await capture();
    await world.fetched('box', 'http://web.test/');
    await waitFor(() =>
      Promise.resolve(
        expect([...sentTo(packetsOf(Buffer.concat(piped.chunks)))]).toContain(`tcp ${WEB}:80`),
      ),
    );
    piped.child.kill('SIGINT');
    const { code, stdout, stderr } = await piped.ended;
    expect(code).toBe(0);
    expect(stderr).toContain(`${packetsOf(stdout).length} packets captured`);
    expect(stderr).toContain(', 0 dropped: interrupted');
  });

  it('ends before it is larger than it may be', async () => {
    const file = fresh('bound.pcap');
    const bounded = await capture('-o', path(file), '--max-size', '64K');
    await world.fetched('box', 'http://web.test/big');
    const { code, stderr } = await bounded.ended;
    expect([code, stderr]).toEqual([0, expect.stringContaining('its size is reached')]);
    expect((await stat(path(file))).size).toBeLessThanOrEqual(65_536);
    expect((await packetsIn(file)).length).toBeGreaterThan(0);
  });

  it('leaves no process where it is killed', async () => {
    const killed = await capture('-o', path(fresh('killed.pcap')));
    expect(await listening()).toHaveLength(1);
    killed.child.kill('SIGKILL');
    await waitFor(async () => expect(await listening()).toEqual([]));
  });

  it('goes on over a restored snapshot, and ends when the VM is suspended', async (context) => {
    if (isRetry(context)) await world.agent('resume', 'box').catch(() => undefined);
    const file = fresh('before.pcap');
    const before = await capture('-o', path(file));
    await goOn('followed', '--follow');
    await world.agent('snapshot', 'create', 'box', `s${tries}`);
    await world.agent('snapshot', 'restore', 'box', `s${tries}`);
    await world.fetched('box', 'http://web.test/');
    await world.agent('suspend', 'box');
    expect(await before.ended).toMatchObject(sayingHow);
    expect([...sentTo(await packetsIn(file))]).toContain(`tcp ${WEB}:80`);
  });

  it('is refused then; once the VM is resumed there is another, or the same where it follows', async (context) => {
    if (isRetry(context)) await world.agent('suspend', 'box').catch(() => undefined);
    const refused = new Running(world.startWith('pipe', 'net', 'capture', 'box'));
    expect(await refused.ended).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('hint: Resume it') as string,
    });
    suspendedMs = Date.now();
    await world.agent('resume', 'box');
    await goOn('resumed');
    await world.fetched('box', 'http://web.test/');
    const { followed, resumed } = going;
    await waitFor(async () => {
      for (const { file } of [followed!, resumed!]) {
        const since = (await packetsIn(file)).filter(({ timeMs }) => timeMs >= suspendedMs);
        expect([...sentTo(since)]).toContain(`tcp ${WEB}:80`);
      }
    });
  });

  it('ends when the VM is removed, and so does what follows it', async (context) => {
    const removed = world.agent('remove', '--force', 'box');
    await (isRetry(context) ? removed.catch(() => undefined) : removed);
    const [followed, resumed] = [going.followed!, going.resumed!];
    expect(await resumed.running.ended).toMatchObject(withVm);
    expect(await followed.running.ended).toMatchObject(withVm);
    expect(followed.running.stderr).not.toContain('--follow waits');
    const after = await packetsIn(resumed.file);
    const all = await packetsIn(followed.file);
    expect(all.filter(({ timeMs }) => timeMs < suspendedMs).length).toBeGreaterThan(0);
    const since = all.filter(({ timeMs }) => timeMs >= suspendedMs);
    expect(since.length).toBeGreaterThanOrEqual(after.length);
    expect(await listening()).toEqual([]);
  });
});
