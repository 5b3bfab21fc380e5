/** Captures of a real guest's packets: from its first one, of what is denied as well, and to their ends. */
import { once } from 'node:events';
import type { ChildProcess } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
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
  let packets: PcapPacket[];

  it('captures from the first packet of the guest on, and what is denied', async () => {
    const wait = 'echo ready; until [ -e /tmp/go ]; do sleep 0.1; done';
    const own = ['--keep', '--name', 'box', '-m', '256M', '--network', 'nat-filtered'];
    const options = [...own, '--pcap', path('first.pcap')];
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
      packets = await packetsIn('first.pcap');
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
    expect((await stat(path('first.pcap'))).mode & 0o777).toBe(0o600);
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
  let followed: Running;

  it('writes to a pipe, and ends well with Ctrl-C', async () => {
    const capture = await Running.capture();
    await world.fetched('box', 'http://web.test/');
    await waitFor(() =>
      Promise.resolve(
        expect([...sentTo(packetsOf(Buffer.concat(capture.chunks)))]).toContain(`tcp ${WEB}:80`),
      ),
    );
    capture.child.kill('SIGINT');
    const { code, stdout, stderr } = await capture.ended;
    expect(code).toBe(0);
    expect(stderr).toContain(`${packetsOf(stdout).length} packets captured`);
    expect(stderr).toContain(', 0 dropped: interrupted');
  });

  it('ends before it is larger than it may be', async () => {
    const capture = await Running.capture('-o', path('bound.pcap'), '--max-size', '64K');
    await world.fetched('box', 'http://web.test/big');
    const { code, stderr } = await capture.ended;
    expect([code, stderr]).toEqual([0, expect.stringContaining('its size is reached')]);
    expect((await stat(path('bound.pcap'))).size).toBeLessThanOrEqual(65_536);
    expect((await packetsIn('bound.pcap')).length).toBeGreaterThan(0);
  });

  it('leaves no process where it is killed', async () => {
    const capture = await Running.capture('-o', path('killed.pcap'));
    expect(await listening()).toHaveLength(1);
    capture.child.kill('SIGKILL');
    await waitFor(async () => expect(await listening()).toEqual([]));
  });

  it('goes on over a restored snapshot, and ends when the VM is suspended', async () => {
    const capture = await Running.capture('-o', path('before.pcap'));
    followed = await Running.capture('-o', path('all.pcap'), '--follow');
    await world.agent('snapshot', 'create', 'box', 's');
    await world.agent('snapshot', 'restore', 'box', 's');
    await world.fetched('box', 'http://web.test/');
    await world.agent('suspend', 'box');
    expect(await capture.ended).toMatchObject(sayingHow);
    expect([...sentTo(await packetsIn('before.pcap'))]).toContain(`tcp ${WEB}:80`);
  });

  it('is refused then; once the VM is resumed there is another, or the same where it follows, until it is removed', async () => {
    const refused = new Running(world.startWith('pipe', 'net', 'capture', 'box'));
    expect(await refused.ended).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('hint: Resume it') as string,
    });
    const suspendedMs = Date.now();
    await world.agent('resume', 'box');
    const capture = await Running.capture('-o', path('after.pcap'));
    await world.fetched('box', 'http://web.test/');
    await world.agent('remove', '--force', 'box');
    expect(await capture.ended).toMatchObject(withVm);
    const after = await packetsIn('after.pcap');
    expect([...sentTo(after)]).toContain(`tcp ${WEB}:80`);
    expect(await followed.ended).toMatchObject(withVm);
    expect(followed.stderr).not.toContain('--follow waits');
    const all = await packetsIn('all.pcap');
    expect(all.filter(({ timeMs }) => timeMs < suspendedMs).length).toBeGreaterThan(0);
    const since = all.filter(({ timeMs }) => timeMs >= suspendedMs);
    expect(since.length).toBeGreaterThanOrEqual(after.length);
    expect([...sentTo(since)]).toContain(`tcp ${WEB}:80`);
    expect(await listening()).toEqual([]);
  });
});
