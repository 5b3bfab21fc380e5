/** Frames of IPv6 that no socket would send, one case a line: what is logged and counted, and whether it gets out. */
import { describe, expect, test } from 'vitest';
import * as f from './frames.ts';
import {
  GATEWAY,
  OTHER_VM,
  IP6,
  packet,
  syn,
  icmp,
  deny,
  allow,
  TCP,
  HOP_BY_HOP,
  NOTHING,
} from './frames6.ts';
import { PASSED, TAGGED, FORGED, MISDIRECTED, ELSEWHERE } from './frames6-ends.ts';
import { padded, HEADERS, neighbour, DISCOVERY, BROKEN } from './frames6-headers.ts';
import { type TestNetwork, useTestNetwork } from './network.ts';
import { expectOutcome, deniedCounts, type Outcome } from './outcome.ts';

let net: TestNetwork;
// The third has no IPv6.
useTestNetwork((made) => (net = made), { vms: 3, vms6: 2 });

async function expectFrame(hex: string, outcome: Outcome, vm: number): Promise<void> {
  const tap = `tvm${vm + 1}`;
  await net.logs();
  await net.arrived();
  const before = await deniedCounts(net, tap);
  await net.vms[vm]!.peer.do('frame', { dev: 'eth0', frames: [hex] });
  await expectOutcome(net, outcome, before, tap);
  const arrived = (await net.arrived()).join(' ');
  const token = Buffer.from('TOKEN').toString('hex');
  const passes = outcome !== 'unlogged' && 'allow' in outcome;
  expect(arrived.includes(token)).toBe(passes);
}

describe.each([
  ['that get through', PASSED],
  ['with tags', TAGGED],
  ['with a forged sender', FORGED],
  ['for nobody that there is', MISDIRECTED],
  ['with headers', HEADERS],
  ['that discover', DISCOVERY],
  ['that are broken, or of no connection', BROKEN],
  ['for somebody else', ELSEWHERE],
])('frames of IPv6 %s', (_name, cases) => {
  test.each(cases)('%s', (_case, hex, outcome) => expectFrame(hex, outcome, 0));
});

describe('frames of IPv6 from a VM that has none', () => {
  const own = { from: '02:bb:00:00:00:03', to: '02:aa:00:00:00:03' };
  const source = 'fd00:210::5'; // as if it had
  test.each<[string, Buffer]>([
    ['a SYN from an address that it might have', syn({ source })],
    ["a SYN from another VM's address", syn({ source: OTHER_VM })],
    ['a SYN from a link-local address', syn({ source: 'fe80::1' })],
    [
      'a neighbour solicitation',
      icmp({ source, destination: GATEWAY, hopLimit: 255 }, 135, neighbour),
    ],
    ['a header of options', packet({ source, next: HOP_BY_HOP }, f.extension(NOTHING, padded))],
  ])('%s', (_name, payload) => expectFrame(f.ethernet(own, IP6, payload), deny('ipv6'), 2));

  test('which has IPv4 all the same', async () => {
    const ip = { source: '10.210.0.10', destination: '203.0.113.10' };
    const payload = f.ipv4({ ...ip, protocol: TCP }, f.tcp(ip, 40_000, 443, f.SYN, 'TOKEN'));
    await expectFrame(f.ethernet(own, 0x0800, payload), allow, 2);
  });
});

test('of all that, nothing went from one VM to another', async () => {
  const { received } = (await net.client.counters({ groups: ['traffic'] })).get('tvm2')!;
  expect(received.packets).toBe(0);
});
