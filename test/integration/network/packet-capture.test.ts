/** Captures of a VM's packets, with a real tap, its rules and tcpdump; who writes to the tap stands in for its guest. */
import { readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PcapReader } from '../../../src/network/traffic/pcap.ts';
import { SCALE } from '../../scale.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';
import { guestOnTap } from './guest-on-tap.ts';
import { TestHost } from './test-host.ts';

const ROOT = join(import.meta.dirname, '../../..');
const VM = 'aaaaaaaaaa01';
const PCAP_HEAD_BYTES = 24;
const RECORD_HEAD_BYTES = 16;

let host: TestHost;
let box: Sandbox;
beforeAll(async () => {
  [host, box] = [await TestHost.start(), await sandbox()];
  await host.module('await network.setUpNetwork();');
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

/** In a process that has given a VM its tap, and sends from it as its guest would. */
async function run(body: string): Promise<unknown[]> {
  const said = await host.module(`
    import { stat } from 'node:fs/promises';
    ${guestOnTap}
    const runtimeDir = '${box.dir}/run';
    const place = await network.joinNetwork({ runtimeDir, vmId: '${VM}', egress: {}, publish: [],
      mac: '02:00:00:00:00:01', logPath: '${box.dir}/log.jsonl' });
    await place.whole;
    const { tap } = place.network;
    const begun = [];
    const capture = async ({ signal, ...rest }) => {
      const one = await api.PacketCapture.start({ ...api.checkCapture(rest, 'capture'), vmId: '${VM}', tap, section: 'capture', signal });
      begun.push(one);
      return one;
    };
    await hold(tap);
    try {
      ${body}
      for (const one of begun) await one[Symbol.asyncDispose]();
    } finally {
      guest.kill('SIGKILL');
      await network.leaveNetwork(runtimeDir, '${VM}');
    }`);
  return said;
}

const path = (name: string) => join(box.dir, name);
async function packetsIn(name: string): Promise<Buffer[]> {
  const text = await readFile(path(name));
  const packets = new PcapReader().push(text);
  const whole = packets.reduce((sum, { record }) => sum + record.length, PCAP_HEAD_BYTES);
  expect(whole).toBe(text.length); // nothing is cut off
  return packets.map(({ data }) => data);
}
/** tcpdump processes that listen to interfaces of the test's host. */
const tcpdumps = async () => (await host.run('ss', '-0', '-p', '-n')).match(/"tcpdump"/g) ?? [];

describe('a capture', () => {
  it('has what the rules drop, of whomever it is, and ends with its owner', async () => {
    const [sockets, result, told] = await run(`
      const c = await capture({ file: '${path('one.pcap')}' });
      await send(3, 100);
      await until(() => c.stats.packets === 3);
      say(execFileSync('ss', ['-0', '-p', '-n'], { encoding: 'utf8' }));
      await c[Symbol.asyncDispose]();
      say(await c.ended); say(told);`);
    expect(sockets).toContain('"tcpdump"');
    expect(result).toEqual({ packets: 3, bytes: 24 + 3 * 116, reason: 'closed', dropped: 0 });
    expect(told).toMatchObject([{ type: 'network.captured', vmId: VM, packets: 3 }]);
    const packets = await packetsIn('one.pcap');
    expect(packets.map((data) => data.includes('SPOOFED'))).toEqual([true, true, true]);
    expect((await stat(path('one.pcap'))).mode & 0o777).toBe(0o600);
    expect(await tcpdumps()).toEqual([]);
  });

  it('keeps so much of each packet as it is told', async () => {
    await run(`
      const c = await capture({ file: '${path('short.pcap')}', snaplen: 64 });
      await send(2, 1000);
      await until(() => c.stats.packets === 2);`);
    expect((await packetsIn('short.pcap')).map(({ length }) => length)).toEqual([64, 64]);
  });

  it('ends by itself before it is larger than its bound, between two packets, however hard it is flooded', async () => {
    const bound = 100_000;
    const [result] = await run(`
      const c = await capture({ file: '${path('flood.pcap')}', maxBytes: ${bound} });
      await send(20000, 1000);
      say(await c.ended);`);
    expect(result).toMatchObject({ reason: 'max-bytes', dropped: expect.any(Number) as number });
    const { size } = await stat(path('flood.pcap'));
    expect(size).toBeLessThanOrEqual(bound);
    expect(size).toBeGreaterThan(bound - 1000 - RECORD_HEAD_BYTES);
    expect(await packetsIn('flood.pcap')).toHaveLength(Math.floor((bound - 24) / 1016));
  });

  it('counts what it was too slow for', async () => {
    const [result] = await run(`
      const slow = new Writable({ highWaterMark: 1, write: (_bytes, _encoding, done) => setTimeout(done, 50) });
      const c = await capture({ stream: slow });
      await send(60000, 1400);
      await c[Symbol.asyncDispose]();
      say(await c.ended);`);
    const { dropped, packets } = result as { dropped: number; packets: number };
    expect(dropped).toBeGreaterThan(1000);
    expect(packets + dropped).toBeLessThanOrEqual(60_000);
  });

  it('ends after its time, with its signal, and where its stream does', async () => {
    const [time, signal, stream] = await run(`
      const timed = await capture({ file: '${path('time.pcap')}', durationMs: 100 });
      say(await timed.ended);
      const abort = new AbortController();
      const aborted = await capture({ file: '${path('signal.pcap')}', signal: abort.signal });
      abort.abort();
      say(await aborted.ended);
      const stream = new PassThrough();
      const cut = await capture({ stream });
      stream.destroy();
      await send(1, 100);
      const { error, ...rest } = await cut.ended;
      say({ ...rest, code: error.code });`);
    expect(time).toMatchObject({ reason: 'duration', packets: 0, dropped: 0 });
    expect(await packetsIn('time.pcap')).toEqual([]);
    expect(signal).toMatchObject({ reason: 'closed' });
    expect(stream).toMatchObject({ reason: 'failed', packets: 0, code: 'ERR_STREAM_DESTROYED' });
  });

  it('ends with the tap, and has what was sent just before', async () => {
    const [result] = await run(`
      const c = await capture({ file: '${path('gone.pcap')}' });
      await send(5, 200);
      await network.leaveNetwork(runtimeDir, '${VM}');
      say(await c.ended);`);
    expect(result).toMatchObject({ reason: 'vm-ended', packets: 5, dropped: 0 });
  });

  it('ends with the tap where the VM’s next one, of the same name, is there before tcpdump is gone', async () => {
    const [result] = await run(`
      const c = await capture({ file: '${path('next.pcap')}' });
      await send(5, 200);
      await until(() => c.stats.packets === 5);
      const { ifalias: alias } = JSON.parse(execFileSync('ip', ['-json', 'link', 'show', tap]).toString())[0];
      // Within a millisecond; tcpdump has not ended by then.
      const input = ['link delete dev ' + tap, 'tuntap add dev ' + tap + ' mode tap', 'link set dev ' + tap + ' alias ' + alias + ' up'];
      execFileSync('ip', ['-batch', '-'], { input: input.join('\\n') });
      const { ifalias: next } = JSON.parse(execFileSync('ip', ['-json', 'link', 'show', tap]).toString())[0] ?? {};
      say(next === alias ? await c.ended : 'it has no next tap');`);
    expect(result).toMatchObject({ reason: 'vm-ended', packets: 5 });
  });

  it('ends where the disk is full, with whole packets', async () => {
    await host.run('mkdir', '-p', path('small'));
    await host.run('mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', path('small'));
    const [result, sizes] = await run(`
      const c = await capture({ file: '${path('small/full.pcap')}' });
      await send(2000, 1000);
      const { error, ...rest } = await c.ended;
      say({ ...rest, ...failure(error) });
      say((await stat('${path('small/full.pcap')}')).size);`);
    await host.run('umount', path('small'));
    expect(result).toMatchObject({ reason: 'failed', code: 'ERR_HOST_DISK_FULL' });
    const { bytes } = result as { bytes: number };
    expect(sizes).toBe(bytes);
    expect((bytes - 24) % 1016).toBe(0);
    expect(bytes).toBeGreaterThan(0);
  });

  it('can be ended though nobody reads its stream any more', async () => {
    const [result, ms] = await run(`
      const stuck = new Writable({ highWaterMark: 1, write: () => undefined });
      const c = await capture({ stream: stuck });
      const t = performance.now();
      say(await Promise.race([c[Symbol.asyncDispose]().then(() => 'ended'), delay(8000, 'stuck', { ref: false })]));
      say(performance.now() - t);`);
    expect(result).toBe('ended');
    expect(ms).toBeLessThan(5_000 * SCALE);
  });
});

describe('none begins, and none of it is left,', () => {
  it('where a file is there already, or a link to one, or no directory', async () => {
    await writeFile(path('there.pcap'), 'mine');
    await symlink(path('there.pcap'), path('link.pcap'));
    const files = ['there.pcap', 'link.pcap', 'no/x.pcap'].map(path);
    const errors = await run(`
      for (const file of ${JSON.stringify(files)}) await capture({ file }).catch((e) => say(failure(e)));`);
    expect(errors).toMatchObject([
      { code: 'ERR_CONFIG', message: `${files[0]} is there already` },
      { code: 'ERR_CONFIG', message: `${files[1]} is there already` },
      { code: 'ERR_CONFIG', hint: 'Name a file in a directory that is there.' },
    ]);
    expect(await readFile(path('there.pcap'), 'utf8')).toBe('mine');
  });

  it('where the tap has become another VM’s, or is gone', async () => {
    const errors = await run(`
      const o = { ...api.checkCapture({ file: '${path('other.pcap')}' }, 'capture'), section: 'capture', tap };
      await api.PacketCapture.start({ ...o, vmId: 'bbbbbbbbbb02' }).catch((e) => say(failure(e)));
      await network.leaveNetwork(runtimeDir, '${VM}');
      await api.PacketCapture.start({ ...o, vmId: '${VM}' }).catch((e) => say(failure(e)));`);
    expect(errors).toMatchObject([{ code: 'ERR_STATE' }, { code: 'ERR_STATE' }]);
    await expect(stat(path('other.pcap'))).rejects.toThrow('ENOENT');
    expect(await tcpdumps()).toEqual([]);
  });

  it('without tcpdump, or the right to', async () => {
    // As root without CAP_NET_RAW: what a container may have.
    const [tool, right] = await run(`
      const { PATH } = process.env;
      process.env.PATH = '/nowhere';
      await capture({ file: '${path('tool.pcap')}' }).catch((e) => say(failure(e)));
      process.env.PATH = PATH;
      const code = "import { PacketCapture, checkCapture } from '${ROOT}/src/network/index.ts';" +
        "const o = { ...checkCapture({ file: '${path('right.pcap')}' }, 'capture'), section: 'capture', vmId: '${VM}' };" +
        "await PacketCapture.start({ ...o, tap: '" + tap + "' }).catch((e) => console.log(JSON.stringify({ code: e.code })));";
      say(JSON.parse(execFileSync('setpriv', ['--bounding-set', '-net_raw', '--', process.execPath,
        ...process.execArgv.slice(0, 2), '--input-type=module', '--eval', code], { encoding: 'utf8' })));`);
    expect(tool).toMatchObject({
      code: 'ERR_HOST_TOOL',
      hint: 'Install it: apt-get install tcpdump.',
    });
    expect(right).toEqual({ code: 'ERR_HOST_PERMISSION' });
    for (const name of ['tool.pcap', 'right.pcap'])
      await expect(stat(path(name))).rejects.toThrow('ENOENT');
  });
});
