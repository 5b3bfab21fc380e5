/** A capture over several lives of a VM: real taps that come and go, and tcpdump; who writes to a tap stands in for the guest. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { PcapReader } from '../../../src/network/traffic/pcap.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';
import { guestOnTap } from './guest-on-tap.ts';
import { TestHost } from './test-host.ts';

const ROOT = join(import.meta.dirname, '../../..');
const VM = 'aaaaaaaaaa01';

let host: TestHost;
let box: Sandbox;
let tries = 0;
beforeEach(() => void (tries += 1));
beforeAll(async () => {
  [host, box] = [await TestHost.start(), await sandbox()];
  await host.module('await network.setUpNetwork();');
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

/** Of this try: a capture writes to no file that is there. */
const path = (name: string) => join(box.dir, `${tries}-${name}`);
/** With a VM that starts, sends and stops as the text says. */
const run = (body: string) =>
  host.module(`
    ${guestOnTap}
    const runtimeDir = '${box.dir}/run';
    let tap, isThere = true;
    const start = async () => {
      const { network: vm, whole } = await network.joinNetwork({ runtimeDir, vmId: '${VM}', egress: {}, publish: [],
        mac: '02:00:00:00:00:01', logPath: '${box.dir}/log.jsonl' });
      await whole;
      tap = vm.tap;
      await hold(tap);
    };
    const stop = async () => {
      guest.kill('SIGKILL');
      await network.leaveNetwork(runtimeDir, '${VM}');
      tap = undefined;
    };
    const follow = ({ signal, ...rest }, at = { tap, look: async () => (isThere ? { tap } : undefined) }) =>
      api.FollowedCapture.start({ ...api.checkCapture({ ...rest, follow: true }, 'capture'),
        vmId: '${VM}', section: 'capture', signal, ...at });
    await start();
    ${body}
    if (tap !== undefined) await stop();`);

it('goes on with the next tap into the same file, with one head, until the VM is gone', async () => {
  const [result, told, during] = await run(`
    const c = await follow({ file: '${path('lives.pcap')}' });
    await send(3, 100);
    await until(() => c.stats.packets === 3);
    await stop();
    await delay(300);
    await start();
    await delay(500); // a guest boots
    await send(2, 200);
    await until(() => c.stats.packets === 5);
    await stop();
    await start();
    await delay(500);
    await send(1, 300);
    await until(() => c.stats.packets === 6);
    const during = c.stats;
    await stop();
    isThere = false;
    say(await c.ended); say(told); say(during);`);
  const bytes = 24 + 3 * 116 + 2 * 216 + 316;
  expect(result).toEqual({ packets: 6, bytes, reason: 'vm-ended', dropped: 0 });
  expect(told).toMatchObject([{ type: 'network.captured', vmId: VM, packets: 6, bytes }]);
  expect(during).toEqual({ packets: 6, bytes });
  const whole = await readFile(path('lives.pcap'));
  expect(whole).toHaveLength(bytes);
  const packets = new PcapReader().push(whole);
  expect(packets.map(({ data }) => data.length)).toEqual([100, 100, 100, 200, 200, 300]);
});

it('has one bound for all of it, and one time', async () => {
  const [size, time] = await run(`
    const c = await follow({ file: '${path('bound.pcap')}', maxBytes: 24 + 3 * 116 });
    await send(2, 100);
    await until(() => c.stats.packets === 2);
    await stop();
    await start();
    await delay(500);
    await send(5, 100);
    say(await c.ended);
    const timed = await follow({ file: '${path('timed.pcap')}', durationMs: 1500 });
    await stop();
    say(await timed.ended);`);
  expect(size).toEqual({ packets: 3, bytes: 24 + 3 * 116, reason: 'max-bytes', dropped: 0 });
  expect(time).toMatchObject({ reason: 'duration', packets: 0 });
  expect(new PcapReader().push(await readFile(path('bound.pcap')))).toHaveLength(3);
});

it('can be ended while there is nothing to capture, and fails with what it writes to', async () => {
  const [closed, aborted, failed, refused] = await run(`
    const c = await follow({ file: '${path('closed.pcap')}' });
    const abort = new AbortController();
    const other = await follow({ file: '${path('aborted.pcap')}', signal: abort.signal });
    const stream = new PassThrough();
    const third = await follow({ stream });
    await stop();
    await delay(200);
    await c[Symbol.asyncDispose]();
    say(await c.ended);
    abort.abort();
    say(await other.ended);
    stream.destroy();
    await start();
    await delay(500);
    await send(1, 100);
    const { error, ...rest } = await third.ended;
    say({ ...rest, code: error.code });
    await follow({ file: '${path('closed.pcap')}' }).catch((e) => say(failure(e)));`);
  expect(closed).toMatchObject({ reason: 'closed', packets: 0 });
  expect(aborted).toMatchObject({ reason: 'closed', packets: 0 });
  expect(failed).toMatchObject({ reason: 'failed', code: 'ERR_STREAM_DESTROYED' });
  expect(refused).toMatchObject({ code: 'ERR_CONFIG' });
  expect((await host.run('ss', '-0', '-p', '-n')).match(/"tcpdump"/g)).toBeNull();
});

it('has of a tap that is lent, and stays, what its VM sends and no other, and ends when the VM is gone', async () => {
  const [result] = await run(`
    await stop();
    const lent = await import('${ROOT}/src/network/lent/lent-taps.ts');
    await lent.makeLentTaps({ count: 1, uid: process.getuid() });
    const [one] = await lent.lentTaps();
    const { tap: name } = one.endpoint;
    const ip = (...words) => execFileSync('ip', ['link', ...words]);
    const remake = async () => {
      await lent.remakeLentTap(one);
      ip('set', name, 'up');
    };
    let now = {};
    try {
      await remake();
      now = { tap: name, loan: 'first' };
      const c = await follow({ file: '${path('lent.pcap')}' }, { ...now, look: async () => (isThere ? now : undefined) });
      await hold(name);
      await send(2, 100);
      await until(() => c.stats.packets === 2);
      guest.kill('SIGKILL');
      ip('set', name, 'down'); // whoever lends it does that, and no more
      await delay(100);
      now = {};
      await delay(1500);
      ip('set', name, 'up');
      await hold(name);
      await send(4, 100);
      guest.kill('SIGKILL');
      await remake();
      now = { tap: name, loan: 'second' };
      await delay(500);
      await hold(name);
      await send(1, 200);
      await until(() => c.stats.packets === 3);
      guest.kill('SIGKILL');
      now = {};
      await remake(); // at once, for another VM of the same user
      await delay(1500);
      await hold(name);
      await send(4, 100);
      guest.kill('SIGKILL');
      await remake();
      now = { tap: name, loan: 'third' };
      await delay(500);
      await hold(name);
      await send(1, 300);
      await until(() => c.stats.packets === 4);
      isThere = false;
      say(await Promise.race([c.ended, delay(10_000, 'it hangs', { ref: false })]));
      await c[Symbol.asyncDispose]();
    } finally {
      guest.kill('SIGKILL');
      ip('delete', name);
    }`);
  expect(result).toMatchObject({ reason: 'vm-ended', packets: 4 });
  const packets = new PcapReader().push(await readFile(path('lent.pcap')));
  expect(packets.map(({ data }) => data.length)).toEqual([100, 100, 200, 300]);
});

it('fails where it can begin at no tap several times in a row, not where taps come and go', async () => {
  const [patient, failed] = await run(`
    const { PATH } = process.env;
    let looks = 0, isHidden = false, isBroken = false;
    const look = async () => {
      if (isHidden || !isThere || tap === undefined) return isThere ? {} : undefined;
      looks += 1;
      return isBroken && looks % 4 === 0 ? {} : { tap };
    };
    const c = await follow({ file: '${path('patient.pcap')}' }, { tap, look });
    isHidden = true;
    await stop();
    await start();
    process.env.PATH = '/nowhere'; // there is no tcpdump
    [looks, isBroken, isHidden] = [0, true, false];
    await until(() => looks > 20);
    [process.env.PATH, isBroken] = [PATH, false];
    await delay(500);
    await send(1, 100);
    await until(() => c.stats.packets === 1);
    isHidden = true;
    await stop();
    await start();
    process.env.PATH = '/nowhere';
    isHidden = false;
    say(c.stats);
    const { error, ...rest } = await c.ended;
    process.env.PATH = PATH;
    say({ ...rest, code: error?.code });`);
  expect(patient).toMatchObject({ packets: 1 });
  expect(failed).toMatchObject({ reason: 'failed', code: 'ERR_HOST_TOOL', packets: 1 });
});
