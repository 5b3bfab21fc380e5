/** What programs get that open sockets, under the default policy. */
import { describe, it } from 'vitest';
import { HOST, LAN, METADATA, NAMES, OTHER, RESERVED, WEB } from '../world.ts';
import { allowed, connect, datagram, denied, type Matrix, pause, type Subject } from './subject.ts';

/** An address, or whose it is. */
type Where = string | ((m: Matrix) => string);
const at = (where: Where, m: Matrix): string => (typeof where === 'string' ? where : where(m));

const OPEN: [to: string, port: number][] = [
  [WEB, 443],
  [WEB, 22],
  [OTHER, 9418],
  [OTHER, 80],
];

const DENIED_TCP: [name: string, to: Where, port: number, cause: string][] = [
  ['mail', WEB, 25, 'policy'],
  ['DNS over TLS', WEB, 853, 'policy'],
  ['a database', OTHER, 5432, 'policy'],
  ['DNS at another server', OTHER, 53, 'policy'],
  ['the host', HOST, 80, 'host'],
  ['ssh of the host', HOST, 22, 'host'],
  ['a port of the host that leads to this very VM', HOST, 8081, 'host'],
  ['the metadata service', METADATA, 80, 'reserved'],
  ['the gateway', (m) => m.one.gateway, 80, 'host'],
  ['another VM', (m) => m.two.address, 80, 'vm'],
  ["another VM's resolver", (m) => m.two.gateway, 53, 'host'],
  ['an address of the pool that no VM has', '10.210.200.1', 443, 'reserved'],
  ...[LAN, ...RESERVED, '192.0.0.8', '192.88.99.1'].map((to): [string, Where, number, string] => [
    'a reserved address',
    to,
    443,
    'reserved',
  ]),
];

const DENIED_UDP: [name: string, to: Where, port: number, cause: string, o?: object][] = [
  ['UDP 443', WEB, 443, 'policy'],
  ['time', WEB, 123, 'policy'],
  ['DNS at another server', NAMES, 53, 'policy'],
  ['DNS at another server, as if it were an answer', NAMES, 53, 'policy', { from: ['', 53] }],
  ['DNS at the host', HOST, 53, 'host'],
  ['UDP 443 of the LAN', LAN, 443, 'reserved'],
  ["the broadcast address of the host's network", '203.0.113.255', 443, 'host'],
  ['all machines of the wire', '255.255.255.255', 9, 'broadcast'],
  ['DHCP', '255.255.255.255', 67, 'broadcast', { from: ['', 68] }],
  ['mDNS', '224.0.0.251', 5353, 'broadcast'],
  ['LLMNR', '224.0.0.252', 5355, 'broadcast'],
  ['SSDP', '239.255.255.250', 1900, 'broadcast'],
  ['a datagram too long for a frame', WEB, 443, 'fragment', { text: 'TOKEN'.repeat(600) }],
  [
    'one of those to the resolver',
    (m) => m.one.gateway,
    53,
    'fragment',
    { text: 'T'.repeat(3000) },
  ],
];

const DENIED_PINGS: [name: string, to: Where, cause: string][] = [
  ['the internet', WEB, 'policy'],
  ['the host', HOST, 'host'],
  ['the LAN', LAN, 'reserved'],
  ['another VM', (m) => m.two.address, 'vm'],
];

/** What a guest's root sets up to get elsewhere, how it tries, and how it is undone. */
const OWN_SETTINGS: {
  name: string;
  set: (m: Matrix) => string;
  undo: (m: Matrix) => string;
  to: string;
  cause: string;
  from?: (m: Matrix) => string;
}[] = [
  {
    name: 'an address of its own choice',
    set: () => 'ip address add 10.210.0.99/32 dev eth0',
    undo: () => 'ip address del 10.210.0.99/32 dev eth0',
    ...{ to: WEB, cause: 'spoof', from: () => '10.210.0.99' },
  },
  {
    name: "another VM's address",
    set: (m) => `ip address add ${m.two.address}/32 dev eth0`,
    undo: (m) => `ip address del ${m.two.address}/32 dev eth0`,
    ...{ to: WEB, cause: 'spoof', from: (m) => m.two.address },
  },
  {
    name: 'a MAC address of its own choice',
    set: () => 'ip link set eth0 address 02:bb:00:00:00:77',
    undo: (m) => `ip link set eth0 address ${m.one.mac}`,
    ...{ to: WEB, cause: 'arp' }, // it has to ask for its gateway anew
  },
  {
    name: "a route by another VM's gateway",
    set: (m) => `ip route add ${OTHER} via ${m.two.gateway} dev eth0 onlink`,
    undo: () => `ip route del ${OTHER}`,
    ...{ to: OTHER, cause: 'arp' },
  },
  {
    name: 'a LAN that were on its own wire',
    set: () => `ip route add ${LAN} dev eth0`,
    undo: () => `ip route del ${LAN}`,
    ...{ to: LAN, cause: 'arp' },
  },
  {
    name: 'IPv6',
    set: () => 'sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0',
    undo: () => 'sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; sleep 0.5', // what was on its way
    ...{ to: '', cause: 'ipv6' },
  },
];

export function socketCases(of: () => Matrix): void {
  const guest = (): Subject => of().one;

  describe('what is open', () => {
    it.each(OPEN)('tcp to %s %i', async (to, port) => {
      await of().check(guest(), () => connect(guest(), to, port), allowed(to, port));
    });

    it('a ping of the gateway', async () => {
      const act = () => guest().peer.do('ping', { to: guest().gateway });
      await of().check(guest(), act, { answer: 'echo', passes: false });
    });
  });

  describe('tcp that is denied', () => {
    it.each(DENIED_TCP)('%s (%s:%i)', async (_name, where, port, cause) => {
      const to = at(where, of());
      const wanted = denied(cause, to, port, 'ECONNREFUSED');
      await of().check(guest(), () => connect(guest(), to, port), wanted);
    });

    it.each([53, 443])('a database, from port %i', async (source) => {
      const act = () => connect(guest(), OTHER, 5432, { from: ['', source] });
      const wanted = denied('policy', OTHER, 5432, 'ECONNREFUSED');
      await of().check(guest(), act, { ...wanted, record: { ...wanted.record, fromPort: source } });
    });
  });

  describe('datagrams and pings that are denied', () => {
    it.each(DENIED_UDP)('%s (%s:%i)', async (_name, where, port, cause, o) => {
      const to = at(where, of());
      // Only the first fragment has a port.
      const wanted = denied(cause, to, cause === 'fragment' ? undefined : port);
      await of().check(guest(), () => datagram(guest(), to, port, o), wanted);
    });

    it.each(DENIED_PINGS)('a ping of %s', async (_name, where, cause) => {
      const to = at(where, of());
      const act = () => guest().peer.do('ping', { to, timeoutS: 0.5 });
      await of().check(guest(), act, denied(cause, to));
    });

    it('joining a group of multicast (IGMP)', async () => {
      const act = () => guest().peer.do('join', { group: '239.1.2.3', from: guest().address });
      await of().check(guest(), act, denied('broadcast', '224.0.0.22'));
    });
  });

  describe('what root sets up in the guest', () => {
    it.each(OWN_SETTINGS)('$name: of no use', async ({ set, undo, to, cause, from }) => {
      const m = of();
      const vm = guest();
      const asRoot = (line: string) => vm.peer.do('run', { line });
      await asRoot(set(m));
      try {
        const source = from === undefined ? {} : { from: [from(m), 0] };
        const act = () =>
          to === '' ? pause(1_500) : connect(vm, to, 443, { timeoutS: 1, ...source });
        const sought = from === undefined ? {} : { from: from(m), to };
        await m.check(vm, act, { record: { kind: 'denied', cause, ...sought }, passes: false });
      } finally {
        await asRoot(undo(m));
      }
      // And all is as it was.
      await m.check(vm, () => connect(vm, WEB, 443), allowed(WEB, 443));
    });
  });
}
