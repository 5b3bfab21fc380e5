/** A capture over several lives of a VM: real taps that come and go, and tcpdump; who writes to a tap stands in for the guest. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PcapReader } from '../../../src/network/traffic/pcap.ts';
import { sandbox, type Sandbox } from '../cli/command.ts';
import { TestHost } from './test-host.ts';

const ROOT = join(import.meta.dirname, '../../..');
const GUEST = join(import.meta.dirname, 'tap-guest.py');
const VM = 'aaaaaaaaaa01';

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

const path = (name: string) => join(box.dir, name);
/** With a VM that starts, sends and stops as the text says. */
const run = (body: string) =>
  host.module(`
    import { spawn } from 'node:child_process';
    import { PassThrough } from 'node:stream';
    import { once } from 'node:events';
    import { setTimeout as delay } from 'node:timers/promises';
    import { events } from '${ROOT}/src/events.ts';
    const runtimeDir = '${box.dir}/run';
    let tap, guest, isThere = true;
    const told = [];
    events.subscribe((e) => e.type === 'network.captured' && told.push(e));
    const start = async () => {
      const { network: vm, whole } = await network.joinNetwork({ runtimeDir, vmId: '${VM}', egress: {}, publish: [],
        mac: '02:00:00:00:00:01', logPath: '${box.dir}/log.jsonl' });
      await whole;
      tap = vm.tap;
      guest = spawn('python3', ['${GUEST}', tap], { stdio: ['pipe', 'pipe', 'inherit'] });
      await once(guest.stdout, 'data');
    };
    const stop = async () => {
      guest.kill('SIGKILL');
      await network.leaveNetwork(runtimeDir, '${VM}');
      tap = undefined;
    };
    const send = async (count, size) => {
      guest.stdin.write(\`\${count} \${size}\\n\`);
      await once(guest.stdout, 'data');
    };
    const follow = ({ signal, ...rest }) => api.FollowedCapture.start({ ...api.checkCapture({ ...rest, follow: true }, 'capture'),
      vmId: '${VM}', tap, section: 'capture', signal, look: async () => (isThere ? { tap } : undefined) });
    const until = async (holds) => { for (let i = 0; i < 2000 && !holds(); i += 1) await delay(5); };
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
