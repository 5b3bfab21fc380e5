/** Frames of a VM on a bridge, with its guard, without it, and with what stands in for it: the real kernel, nft and tc. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { SCALE } from '../../scale.ts';
import { Peer, PEER_SCRIPT } from '../nft/network.ts';
import { TestHost } from './test-host.ts';

const RUNTIME_DIR = '/run/some-state';
const MAC = '020000000001';
const OTHER_MAC = '020000000009';
const ADDRESS = 'c0000205'; // 192.0.2.5
const OTHER_ADDRESS = 'c0000209';
const OPTIONS = `
  import { joinBridge } from '${process.cwd()}/src/network/bridge.ts';
  import { raiseFrameFilter } from '${process.cwd()}/src/network/frame-filter.ts';
  const lan = { address: '192.0.2.5/24' };
  const identity = { mac: '02:00:00:00:00:01', address: '192.0.2.5' };
  const mend = () => network.mendBridgeGuards('${RUNTIME_DIR}', async () => identity);`;

/** A datagram of no protocol. */
function ipv4(from: string, payload = ''): string {
  const length = (20 + payload.length / 2).toString(16).padStart(4, '0');
  const words = (sum: string) => `4500${length}0001000040fd${sum}${from}c00002ff`;
  let sum = (words('0000').match(/..../g) ?? []).reduce((all, one) => all + parseInt(one, 16), 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return words((~sum & 0xffff).toString(16).padStart(4, '0')) + payload;
}
const arp = (mac: string, address: string, lengths = '0604') =>
  `00010800${lengths}0001${mac}${address}000000000000c0000201`;
/** Behind the address that a frame is for: each has one of its own, which is nobody's, by which it is known again. */
const HONEST: Readonly<Record<string, string>> = {
  IPv4: `${MAC}0800${ipv4(ADDRESS)}`,
  'more than a head of it': `${MAC}0800${ipv4(ADDRESS, '55'.repeat(900))}`,
  ARP: `${MAC}0806${arp(MAC, ADDRESS)}`,
};
const FORGED: Readonly<Record<string, string>> = {
  'another’s MAC address': `${OTHER_MAC}0800${ipv4(ADDRESS)}`,
  'another’s address': `${MAC}0800${ipv4(OTHER_ADDRESS)}`,
  'no whole head': `${MAC}0800${ipv4(ADDRESS).slice(0, -2)}`,
  'nothing behind the type': `${MAC}0800`,
  'ARP from another’s MAC address': `${OTHER_MAC}0806${arp(MAC, ADDRESS)}`,
  'ARP for another’s MAC address': `${MAC}0806${arp(OTHER_MAC, ADDRESS)}`,
  'ARP for another’s address': `${MAC}0806${arp(MAC, OTHER_ADDRESS)}`,
  'ARP of other lengths': `${MAC}0806${arp(MAC, ADDRESS, '0804')}`,
  'half of ARP': `${MAC}0806${arp(MAC, ADDRESS).slice(0, -2)}`,
  'a VLAN': `${MAC}810000050800${ipv4(ADDRESS)}`,
  'no VLAN, with a tag': `${MAC}810000000800${ipv4(ADDRESS)}`,
  'a VLAN in another': `${MAC}88a80005810000050800${ipv4(ADDRESS)}`,
  IPv6: `${MAC}86dd6000000000003b40${'fe80'.padEnd(32, '1')}${'ff02'.padEnd(32, '0')}`,
  'an unknown type': `${MAC}88b5${'00'.repeat(46)}`,
  'spanning tree': `${MAC}0026424203${'00'.repeat(35)}`,
};
const FRAMES = Object.entries({ ...HONEST, ...FORGED }).map(([name, rest], index) => ({
  ...{ name, rest },
  to: name === 'spanning tree' ? '0180c2000000' : `02ffffffff${(index + 16).toString(16)}`,
}));
/** What else looks at what passes a bridge, where the kernel has it: it drops what has no whole head. */
const NO_OTHERS =
  'for one in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $one; done || true';

let host: TestHost;
let sniffer: Peer;
let sender: ChildProcessWithoutNullStreams;
let isKnown = false;
beforeAll(async () => {
  host = await TestHost.start();
  await host.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  await host.run('sh', '-c', NO_OTHERS);
  await host.run('ip', 'link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'other');
  await host.run('ip', 'link', 'set', 'one', 'master', 'br0', 'up');
  for (const name of ['other', 'br0'])
    await host.run('ip', 'link', 'set', name, 'addrgenmode', 'none', 'up');
  const [tap, known] = await host.module(`${OPTIONS}
    const tap = await joinBridge({ vmId: 'aaaaaaaaaa01', runtimeDir: '${RUNTIME_DIR}', bridge: 'br0', mac: identity.mac, lan });
    say(tap);
    say(await raiseFrameFilter({ tap, ...identity }));`);
  expect(tap).toBe('qmpb1');
  isKnown = known === true;
  const [file, args] = host.command([
    'python3',
    join(import.meta.dirname, 'tap-frames.py'),
    'qmpb1',
  ]);
  sender = spawn(file, args);
  await once(sender.stdout, 'data');
  const [program, words] = host.command(['python3', PEER_SCRIPT]);
  sniffer = new Peer([program, ...words]);
  await sniffer.ready();
  await sniffer.do('sniff', { id: 'frames', dev: 'other' });
});
afterAll(async () => {
  sender.kill('SIGKILL');
  sniffer.close();
  await host[Symbol.asyncDispose]();
});
beforeEach((context) => {
  if (!isKnown) context.skip('this kernel has no cls_bpf');
});

/** Sends all. @returns names of those that came out of the bridge */
async function passed(): Promise<string[]> {
  await sniffer.do('take', { id: 'frames' });
  for (const { to, rest } of FRAMES) {
    sender.stdin.write(`${to}${rest}\n`);
    await once(sender.stdout, 'data');
  }
  await delay(200 * SCALE);
  const seen = (await sniffer.do('take', { id: 'frames' })) as string[];
  return FRAMES.filter(({ to }) => seen.some((one) => one.startsWith(to))).map(({ name }) => name);
}
const names = Object.keys;
/** Frames so far. */
async function dropped(): Promise<number> {
  const shown = await host.run('tc', '-s', 'qdisc', 'show', 'dev', 'qmpb1');
  return Number(/qdisc clsact [^]*?\(dropped (\d+),/.exec(shown)?.[1]);
}
/** Without what nobody asks about: nftables looks at no more than the sender. */
const SHORT = ['no whole head', 'half of ARP'];
const withoutFilter = () => host.run('tc', 'qdisc', 'delete', 'dev', 'qmpb1', 'clsact');

it('a VM is itself, and nothing else gets onto its LAN; what was dropped is counted', async () => {
  const before = await dropped();
  expect(await passed()).toEqual(names(HONEST));
  expect((await dropped()) - before).toBe(names(FORGED).length);
});

it('it is no other where somebody flushes its guard, from the first frame on', async () => {
  await host.run('nft', 'flush', 'ruleset');
  expect(await passed()).toEqual(names(HONEST));
});

it('without both it can be all of that, and gc puts both back', async () => {
  await withoutFilter();
  expect(await passed()).toEqual([...names(HONEST), ...names(FORGED)]);
  await host.module(`${OPTIONS} await mend();`);
  expect(await passed()).toEqual(names(HONEST));
  await host.run('nft', 'flush', 'ruleset');
  expect(await passed()).toEqual(names(HONEST));
});

it('its guard alone holds, as on a kernel that has nothing else, and gc puts back what is missing', async () => {
  await host.module(`${OPTIONS} await mend();`);
  await withoutFilter();
  expect((await passed()).filter((name) => !SHORT.includes(name))).toEqual(names(HONEST));
  const ruleset = await host.run('nft', 'list', 'ruleset');
  expect(ruleset).toMatch(/counter packets [1-9]/);
  await host.module(`${OPTIONS} await mend();`);
  await host.run('nft', 'flush', 'ruleset');
  expect(await passed()).toEqual(names(HONEST));
});

it('where another’s filter is in its place it says so; a tap that is gone has none', async () => {
  const foreign = ['dev', 'foreign', 'ingress', 'protocol', 'ip', 'prio', '1', 'handle', '1'];
  await host.run('ip', 'tuntap', 'add', 'foreign', 'mode', 'tap');
  try {
    await host.run('tc', 'qdisc', 'add', 'dev', 'foreign', 'clsact');
    await host.run('tc', 'filter', 'add', ...foreign, ...['bpf', 'bytecode', '1,6 0 0 0']);
    const [raised, ...has] = await host.module(`
      ${OPTIONS}
      import { hasFrameFilter } from '${process.cwd()}/src/network/frame-filter.ts';
      await raiseFrameFilter({ tap: 'foreign', ...identity }).then(say, (e) => say(failure(e)));
      for (const tap of ['foreign', 'gone']) say(await hasFrameFilter({ tap, ...identity }));`);
    expect(raised).toMatchObject({
      code: 'ERR_NETWORK_INTERFACE',
      message: expect.stringContaining('Protocol mismatch') as string,
    });
    expect(has).toEqual([false, false]);
  } finally {
    await host.run('ip', 'link', 'delete', 'foreign');
  }
});
