/**
 * A choice of the cases of test/integration/nft on a real guest with a real tap: what passes arrives upstream and is on
 * record, what is denied never arrives, the program learns of it, and the VM's log says why.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import { parseIp } from '../../../src/network/traffic/nflog.ts';
import * as f from '../../integration/nft/frames.ts';
import type { Peer } from '../../integration/nft/network.ts';
import { Records } from './records.ts';
import { HOST, LAN, METADATA, NAMES, OTHER, RESERVED, WEB, World } from './world.ts';

let world: World;
let records: Records;
let guest: Peer;
let internet: Peer;
/** Of the guest under test. */
let own: { mac: string; address: string; gateway: string };
let twin: NetworkInfo;

const GATEWAY_MAC = '02:71:6d:70:61:01';
/** Denials are logged at this rate per VM; faster, the log would leave some out. */
const PACE_MS = 200;
const TOKEN = 'TOKEN';

beforeAll(async () => {
  world = await World.create();
  await world.agent('setup', 'network');
  await world.agent('create', '--network', 'nat-filtered', '--name', 'one');
  await world.agent('fork', 'one', '--name', 'two');
  const info = async (vm: string) =>
    JSON.parse(await world.agent('net', 'show', vm, '--json')) as NetworkInfo;
  const one = await info('one');
  twin = await info('two');
  const mac = await world.agent('exec', 'one', '--', 'cat', '/sys/class/net/eth0/address');
  own = { mac: mac.trim(), address: one.guestAddress!, gateway: one.gatewayAddress! };
  records = new Records(world, 'one');
  guest = await world.guestPeer('one');
  internet = await world.internetPeer();
  await internet.do('listen', { tcp: [22, 25, 443, 853, 5432, 9418], udp: [123, 443] });
  await internet.do('listen', { address: OTHER, tcp: [53], udp: [53] });
  await internet.do('sniff', { id: 'frames', dev: 'eth0' });
});
afterAll(async () => {
  records[Symbol.dispose]();
  await world.agent('remove', '--force', 'one', 'two');
  await world[Symbol.asyncDispose]();
});

interface Wanted {
  /** What the program gets; undefined: nobody answers. */
  readonly answer?: string;
  /** Its record. Undefined: none at all. */
  readonly record?: Record<string, unknown> | undefined;
  /** Whether anything of it is seen upstream. */
  readonly passes: boolean;
}

/** Does one thing in the guest, and looks at what came of it. */
async function check(act: () => Promise<unknown>, wanted: Wanted): Promise<void> {
  await internet.do('take', { id: 'frames' });
  records.clear();
  const [answer] = await Promise.all([act(), new Promise((done) => setTimeout(done, PACE_MS))]);
  if (wanted.answer !== undefined) expect(answer).toBe(wanted.answer);
  if (wanted.record !== undefined) await records.expect(wanted.record);
  const arrived = (await internet.do('take', {
    id: 'frames',
    ...(wanted.passes ? { waitS: 2 } : {}),
  })) as string[];
  const { to, toPort } = wanted.record ?? {};
  const isOfIt = (hex: string): boolean => {
    if (hex.includes(Buffer.from(TOKEN).toString('hex'))) return true;
    const ip = parseIp(Buffer.from(hex, 'hex').subarray(14));
    return to !== undefined && ip?.to === to && (toPort === undefined || ip?.toPort === toPort);
  };
  expect(arrived.some(isOfIt)).toBe(wanted.passes);
  const verdicts = records.all.filter(({ kind }) => kind !== 'dns').map(({ kind }) => kind);
  const kind = wanted.record?.['kind'];
  expect(new Set(verdicts)).toEqual(new Set(kind === undefined || kind === 'dns' ? [] : [kind]));
}

const allowed = (to: string, toPort: number): Wanted => ({
  answer: 'ok',
  record: { kind: 'connection', protocol: 'tcp', to, toPort, rule: 'public addresses' },
  passes: true,
});
const denied = (cause: string, to?: string, toPort?: number, answer?: string): Wanted => ({
  ...(answer === undefined ? {} : { answer }),
  record: {
    ...{ kind: 'denied', cause },
    ...(to === undefined ? {} : { to }),
    ...(toPort === undefined ? {} : { toPort }),
  },
  passes: false,
});
/** A question for the address of a name, every byte of it ASCII. */
const question = (name: string): string => {
  const labels = name.split('.').map((label) => String.fromCharCode(label.length) + label);
  return `\x12\x34\x01\0\0\x01\0\0\0\0\0\0${labels.join('')}\0\0\x01\0\x01`;
};
const overTcp = (text: string): string => `\0${String.fromCharCode(text.length)}${text}`;
const connect = (to: string, port: number, id?: string) =>
  guest.do('tcp_connect', { to, port, ...(id === undefined ? {} : { id }) });
const asRoot = (...argv: string[]) => world.agent('exec', '-u', 'root', 'one', '--', ...argv);
const ask = (name: string) => guest.do('udp', { to: own.gateway, port: 53, text: question(name) });

describe('what is open', () => {
  it.each([
    [WEB, 443],
    [WEB, 22],
    [OTHER, 9418],
    [OTHER, 80],
  ])('tcp to %s %i', async (to, port) => {
    await check(() => connect(to, port), allowed(to, port));
  });

  it('names, by UDP and by TCP', async () => {
    const record = { kind: 'dns', name: 'web.test', verdict: 'answered', addresses: [WEB] };
    await check(() => ask('web.test'), { answer: 'echo', record, passes: false });
    await guest.do('tcp_connect', { to: own.gateway, port: 53, id: 'dns' });
    const text = overTcp(question('web.test'));
    await check(() => guest.do('say', { id: 'dns', text }), {
      ...{ answer: 'echo', record, passes: false },
    });
  });

  it('a ping of the gateway', async () => {
    await check(() => guest.do('ping', { to: own.gateway }), { answer: 'echo', passes: false });
  });
});

describe('tcp that is denied', () => {
  it.each([
    ['mail', WEB, 25, 'policy'],
    ['DNS over TLS', WEB, 853, 'policy'],
    ['a database', OTHER, 5432, 'policy'],
    ['DNS at another server', OTHER, 53, 'policy'],
    ['the host', HOST, 80, 'host'],
    ['ssh of the host', HOST, 22, 'host'],
    ['the metadata service', METADATA, 80, 'reserved'],
    ...[LAN, ...RESERVED].map((to) => ['a reserved address', to, 443, 'reserved'] as const),
  ] as const)('%s (%s:%i)', async (_name, to, port, cause) => {
    await check(() => connect(to, port), denied(cause, to, port, 'ECONNREFUSED'));
  });

  it.each([
    ['the gateway', () => own.gateway, 80, 'host'],
    ['another VM', () => twin.guestAddress!, 80, 'vm'],
    ["another VM's resolver", () => twin.gatewayAddress!, 53, 'host'],
  ])('%s', async (_name, where, port, cause) => {
    await check(() => connect(where(), port), denied(cause, where(), port, 'ECONNREFUSED'));
  });
});

describe('datagrams and pings that are denied', () => {
  it.each([
    ['UDP 443', WEB, 443, 'policy'],
    ['time', WEB, 123, 'policy'],
    ['DNS at another server', NAMES, 53, 'policy'],
    ['DNS at the host', HOST, 53, 'host'],
    ['UDP 443 of the LAN', LAN, 443, 'reserved'],
  ])('%s', async (_name, to, port, cause) => {
    // An answer is the kernel's ICMP, which it bounds (docs/network-rules.md): the rest times out.
    const act = () => guest.do('udp', { to, port, text: TOKEN, timeoutS: 1 });
    await check(act, denied(cause, to, port));
  });

  it.each([
    ['the internet', () => WEB, 'policy'],
    ['the LAN', () => LAN, 'reserved'],
    ['another VM', () => twin.guestAddress!, 'vm'],
  ])('a ping of %s', async (_name, where, cause) => {
    const act = () => guest.do('ping', { to: where(), timeoutS: 1 });
    await check(act, denied(cause, where()));
  });
});

/** Frames byte by byte, from the guest's own interface. */
type Make = () => string;
const honest = () => ({ from: own.mac, to: GATEWAY_MAC });
const IP = 0x0800;
const packet = (o: Partial<f.IpOptions> = {}, port = 443): Buffer => {
  const ends = { source: own.address, destination: WEB, ...o };
  return f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, 47_001, port, f.SYN, TOKEN));
};
const ip =
  (o: Partial<f.IpOptions>): Make =>
  () =>
    f.ethernet(honest(), IP, packet(o));
const from =
  (source: () => string): Make =>
  () =>
    f.ethernet(honest(), IP, packet({ source: source() }));
const tagged =
  (...tags: [number, number][]): Make =>
  () =>
    f.ethernet(honest(), IP, packet(), tags);
const v6 =
  (destination: string, next = 17): Make =>
  () =>
    f.ethernet(honest(), 0x86dd, f.ipv6(destination, TOKEN, next));
const claim = (o: Partial<Parameters<typeof f.arp>[0]>): string =>
  f.ethernet(
    honest(),
    0x0806,
    f.arp({
      ...{ operation: 1, senderMac: own.mac, sender: own.address, target: own.gateway, ...o },
    }),
  );
const ends = (source: string, destination: string) => ({ source, destination });

const FRAMES: [name: string, make: Make, cause: string][] = [
  ['IPv6 to a global address', v6('20010db8'.padEnd(32, '1')), 'ipv6'],
  ['IPv6 to a link-local address', v6('fe80'.padEnd(32, '1')), 'ipv6'],
  ['IPv6 to all nodes', v6('ff02'.padEnd(31, '0') + '1'), 'ipv6'],
  ['IPv6 to a mapped address', v6('ffffcb00710a'.padStart(32, '0')), 'ipv6'],
  ['IPv6 to the metadata service by NAT64', v6('0064ff9b0000000000000000a9fea9fe'), 'ipv6'],
  ['ICMPv6', v6('20010db8'.padEnd(32, '1'), 58), 'ipv6'],
  ['a VLAN tag with VID 0', tagged([0x8100, 0]), 'ethertype'],
  ['a VLAN tag with VID 5', tagged([0x8100, 5]), 'ethertype'],
  ['two VLAN tags', tagged([0x88a8, 0], [0x8100, 0]), 'ethertype'],
  [
    "the gateway's MAC as sender",
    () => f.ethernet({ from: GATEWAY_MAC, to: GATEWAY_MAC }, IP, packet()),
    'spoof',
  ],
  [
    'a foreign MAC as sender',
    () => f.ethernet({ ...honest(), from: '02:bb:00:00:00:09' }, IP, packet()),
    'spoof',
  ],
  ["another VM's address as sender", from(() => twin.guestAddress!), 'spoof'],
  ["the gateway's address as sender", from(() => own.gateway), 'spoof'],
  ["the host's address as sender", from(() => HOST), 'spoof'],
  ['a public address as sender', from(() => OTHER), 'spoof'],
  ['no address as sender (DHCP)', from(() => '0.0.0.0'), 'spoof'],
  [
    'to the broadcast MAC',
    () => f.ethernet({ ...honest(), to: 'ff:ff:ff:ff:ff:ff' }, IP, packet()),
    'broadcast',
  ],
  ['loose source routing', ip({ options: Buffer.from([131, 7, 4, 10, 1, 2, 3, 0]) }), 'options'],
  ['strict source routing', ip({ options: Buffer.from([137, 7, 4, 10, 1, 2, 3, 0]) }), 'options'],
  ['a first fragment', ip({ fragment: 0x2000 }), 'fragment'],
  ['a last fragment', ip({ fragment: 0x0010 }), 'fragment'],
  ['time to live 1', ip({ ttl: 1 }), 'ttl'],
  ['loopback', ip({ destination: '127.0.0.1' }), 'address'],
  ['multicast', ip({ destination: '224.0.0.251' }), 'address'],
  ['IP in IP', ip({ protocol: 4 }), 'protocol'],
  ['GRE', ip({ protocol: 47 }), 'protocol'],
  ["ARP in the gateway's name", () => claim({ sender: own.gateway, operation: 2 }), 'arp'],
  ["ARP in another VM's name", () => claim({ sender: twin.guestAddress! }), 'arp'],
  ["ARP with another's MAC inside", () => claim({ senderMac: '02:bb:00:00:00:09' }), 'arp'],
  [
    'an ACK out of nothing',
    () => {
      const at = ends(own.address, WEB);
      const segment = f.tcp(at, 47_002, 443, f.ACK, TOKEN);
      return f.ethernet(honest(), IP, f.ipv4({ protocol: 6, ...at }, segment));
    },
    'state',
  ],
  [
    'an ICMP error out of nothing',
    () => {
      const at = ends(WEB, own.address);
      const quoted = f.ipv4({ protocol: 17, ...at }, f.udp(at, 1000, 2000, TOKEN));
      const error = f.fragmentationNeeded(quoted);
      return f.ethernet(honest(), IP, f.ipv4({ protocol: 1, ...ends(own.address, WEB) }, error));
    },
    'state',
  ],
];

describe('frames of root’s', () => {
  it('are let through where they are honest', async () => {
    const frames = [f.ethernet(honest(), IP, packet())];
    await check(() => guest.do('frame', { dev: 'eth0', frames }), {
      record: { kind: 'connection', to: WEB, toPort: 443 },
      passes: true,
    });
  });

  it.each(FRAMES)('%s', async (_name, make, cause) => {
    await check(() => guest.do('frame', { dev: 'eth0', frames: [make()] }), denied(cause));
  });

  it('an address of its own choice is of no use', async () => {
    await asRoot('ip', 'address', 'add', '10.210.0.99/32', 'dev', 'eth0');
    const o = { to: WEB, port: 443, from: ['10.210.0.99', 0], timeoutS: 1 };
    await check(() => guest.do('tcp_connect', o), {
      ...denied('spoof', WEB, 443, 'timeout'),
      record: { kind: 'denied', cause: 'spoof', from: '10.210.0.99', to: WEB },
    });
    await asRoot('ip', 'address', 'del', '10.210.0.99/32', 'dev', 'eth0');
    await check(() => connect(WEB, 443), allowed(WEB, 443));
  });
});

describe('a policy that changes', () => {
  it('lets no reply in on a connection that it allows no more', async () => {
    expect(await connect(OTHER, 443, 'old')).toBe('ok');
    expect(await guest.do('say', { id: 'old' })).toBe('echo');
    await world.agent('net', 'set', 'one', '--no-public', '--allow-cidr', WEB);
    records.clear();
    await internet.do('tell', { port: 443, text: 'late' });
    expect(await guest.do('receive', { id: 'old', timeoutS: 1 })).toMatch(/timeout|ECONNRESET/);
    // Cut, or unasked for: whether the host has forgotten the connection by then is a matter of time.
    await records.expect({
      kind: 'denied',
      from: OTHER,
      cause: expect.stringMatching(/^(cut|inward)$/),
    });
    await check(() => connect(OTHER, 443), denied('policy', OTHER, 443, 'ECONNREFUSED'));
  });

  it('follows a name whose address changes, and what is open stays', async () => {
    await world.rename({ 'moving.test': WEB });
    await world.agent('net', 'set', 'one', '--allow-domain', 'moving.test');
    const resolved = (address: string) => ({
      kind: 'dns',
      name: 'moving.test',
      verdict: 'answered',
      addresses: [address],
    });
    await check(() => connect(WEB, 443), denied('policy', WEB, 443, 'ECONNREFUSED'));
    await ask('moving.test');
    await records.expect(resolved(WEB));
    expect(await connect(WEB, 443, 'web')).toBe('ok');
    await world.rename({ 'moving.test': OTHER });
    await expect
      .poll(
        async () => {
          await ask('moving.test');
          await new Promise((done) => setTimeout(done, PACE_MS));
          return records.all.some(
            (record) => 'addresses' in record && record.addresses?.[0] === OTHER,
          );
        },
        { timeout: 10_000 },
      )
      .toBe(true);
    expect(await connect(OTHER, 443)).toBe('ok');
    // Both are open for the answer's TTL and five minutes (docs/resolver.md), no longer.
    const open = await world.run('nft', 'list', 'table', 'inet', 'qmp_agent');
    for (const address of [WEB, OTHER])
      expect(open).toMatch(new RegExp(`${address} timeout 5m1s expires (5m1s|[1-5]m\\d|\\d+s)`));
    expect(await guest.do('say', { id: 'web' })).toBe('echo');
  });

  it.each([LAN, METADATA, '127.0.0.1'])(
    'a name that is rebound to %s opens nothing',
    async (to) => {
      await world.rename({ 'moving.test': to });
      await expect
        .poll(
          async () => {
            await ask('moving.test');
            await new Promise((done) => setTimeout(done, PACE_MS));
            return records.all.some(
              (record) => 'verdict' in record && record.verdict === 'rebinding',
            );
          },
          { timeout: 10_000 },
        )
        .toBe(true);
      if (to !== '127.0.0.1')
        await check(() => connect(to, 443), denied('reserved', to, 443, 'ECONNREFUSED'));
      await world.rename({ 'moving.test': OTHER });
      records.clear();
    },
  );
});
