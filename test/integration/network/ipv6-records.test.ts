/** Records and names of IPv6: real packets, by the real rules, nflog and tcpdump, on a host of the tests' own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TrafficRecord } from '../../../src/network/traffic/record.ts';
import { TestHost } from './test-host.ts';

const ROOT = join(import.meta.dirname, '../../..');
const GATEWAY_MAC = '02:71:6d:70:61:01';
const WEB = '2606:4700::10';

/** Two VMs on veth pairs in place of taps; the second has no IPv6, and tries it. */
const vmOf = (n: 1 | 2) => ({
  ...{ tap: `qmpa${n}`, mac: `02:00:00:00:00:0${n}`, generation: 1 },
  ...{ guestAddress: `10.210.0.${2 * n + 1}`, gatewayAddress: `10.210.0.${2 * n}` },
  guest6: `fd12::${2 * n + 1}`,
  gateway6: `fd12::${2 * n}`,
});
const VMS = [vmOf(1), vmOf(2)] as const;

/** The address behind the host is nobody's: packets leave for a peer that drops them. */
const UPSTREAM = `
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link add up0 type veth peer name up1
ip link set up0 up
ip link set up1 up
ip address add 2001:db8:1::1/64 dev up0 nodad
ip neighbour add 2001:db8:1::2 lladdr 02:00:00:00:01:02 dev up0 nud permanent
ip route add default via 2001:db8:1::2
`;
const hostSide = (
  { tap, guest6, gateway6, gatewayAddress, mac }: (typeof VMS)[number],
  guestPid: number,
) => `
ip link add ${tap} type veth peer name eth0 netns ${guestPid}
echo 1 > /proc/sys/net/ipv6/conf/${tap}/addr_gen_mode
ip link set ${tap} address ${GATEWAY_MAC} group 20813
ip link set ${tap} up
ip address add ${gatewayAddress}/31 dev ${tap}
ip address add ${gateway6}/127 dev ${tap} nodad
ip neighbour add ${guest6} lladdr ${mac} dev ${tap} nud permanent
`;
const guestSide = ({ guest6, gateway6, guestAddress, mac }: (typeof VMS)[number]) => `
echo 1 > /proc/sys/net/ipv6/conf/eth0/addr_gen_mode
ip link set eth0 address ${mac}
ip link set eth0 up
ip address add ${guestAddress}/31 dev eth0
ip address add ${guest6}/127 dev eth0 nodad
ip neighbour add ${gateway6} lladdr ${GATEWAY_MAC} dev eth0 nud permanent
ip route add default via ${gateway6}
`;
/** What each of them does; nobody waits for an answer. */
const SEND = `
import socket, sys
def tcp(address, port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex((address, port))
    return s
def udp(address, port):
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', (address, port))
open = [tcp('${WEB}', 443), tcp('fd99::1', 5432)]
udp('${WEB}', 443)
ping = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
ping.sendto(bytes([128, 0, 0, 0, 0, 1, 0, 1]), ('${WEB}', 0))
`;

let host: TestHost;
let dir: string;
const guests: ChildProcess[] = [];
beforeAll(async () => {
  host = await TestHost.start();
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-test-'));
  await host.run('sh', '-ec', UPSTREAM);
  for (const vm of VMS) {
    const keep = ['--net', 'sh', '-c', 'echo ready; exec sleep infinity'];
    const guest = spawn('unshare', keep, { stdio: ['ignore', 'pipe', 'inherit'] });
    guests.push(guest);
    await once(guest.stdout, 'data');
    await host.run('sh', '-ec', hostSide(vm, guest.pid ?? 0));
    await host.run('nsenter', '-t', String(guest.pid), '--net', 'sh', '-ec', guestSide(vm));
  }
});
afterAll(async () => {
  for (const guest of guests) {
    const gone = once(guest, 'exit');
    if (guest.kill('SIGKILL')) await gone;
  }
  await host[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** Entries as they are on disk, the policy to be put in. */
const entriesOf = (name: string) =>
  VMS.map(({ guest6, gateway6, ...network }, index) => ({
    ...{ vmId: `aaaaaaaaaa0${index + 1}`, published: [], egress: {} },
    logPath: join(dir, `${name}${index + 1}`),
    network: {
      ...network,
      v6: index === 0 ? { guestAddress: guest6, gatewayAddress: gateway6 } : undefined,
    },
  }));
const recordsOf = async (name: string) =>
  (await readFile(join(dir, name), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as TrafficRecord);

it('new connections and denials by IPv6 are on record, with addresses, ports, names and remedies', async () => {
  const pids = guests.map(({ pid }) => pid);
  await host.module(`
    const { LogCapture } = await import('${ROOT}/src/network/traffic/log-capture.ts');
    const { TrafficLogs } = await import('${ROOT}/src/network/traffic/logs.ts');
    const { setTimeout: delay } = await import('node:timers/promises');
    const { execFileSync } = await import('node:child_process');
    const policy = api.makePolicy({});
    const entries = ${JSON.stringify(entriesOf('log'))}.map((entry) =>
      ({ ...entry, policy, network: { ...entry.network, policy: policy.rules } }));
    const client = new nft.NftClient();
    await client.ensureBase();
    for (const { network: vm } of entries) await client.apply(nft.addVm(vm));
    const logs = new TrafficLogs();
    for (const entry of entries) await logs.set(entry);
    logs.addQuery({ type: 'dns.query', vmId: entries[0].vmId, time: new Date().toISOString(),
      name: 'web.example', recordType: 'AAAA', verdict: 'answered', rcode: 'NOERROR',
      addresses: ['${WEB}'], durationMs: 1, lost: 0 });
    const seen = new Set();
    const capture = new LogCapture({
      group: nft.LOG_GROUP,
      say: (text) => process.stderr.write(text + '\\n'),
      onPacket: (packet) => { seen.add(packet.inDevice); logs.addPacket(packet); },
    }).start();
    // tcpdump needs a while before it listens; what comes before that is nowhere.
    for (let tries = 0; seen.size < 2 && tries < 100; tries += 1) {
      for (const pid of ${JSON.stringify(pids)})
        execFileSync('nsenter', ['-t', String(pid), '--net', 'python3', '-c', ${JSON.stringify(SEND)}]);
      await delay(200);
    }
    await delay(300);
    await capture[Symbol.asyncDispose]();
    await logs.settle();`);
  const one = await recordsOf('log1');
  const from = { from: 'fd12::3', fromPort: expect.any(Number) };
  for (const expected of [
    {
      ...{ kind: 'connection', protocol: 'tcp', ...from, to: WEB, toPort: 443 },
      ...{ name: 'web.example', rule: 'public addresses' },
    },
    {
      ...{ kind: 'denied', protocol: 'tcp', ...from, to: 'fd99::1', toPort: 5432 },
      ...{ cause: 'reserved', remedy: '--allow-cidr [fd99::1]:5432' },
    },
    {
      ...{ kind: 'denied', protocol: 'udp', ...from, to: WEB, toPort: 443, name: 'web.example' },
      ...{ cause: 'policy', remedy: '--allow-port 443/udp' },
    },
    { kind: 'denied', protocol: 'icmpv6', from: 'fd12::3', to: WEB, cause: 'policy' },
  ])
    expect(one).toContainEqual(expect.objectContaining(expected));
  const two = await recordsOf('log2');
  expect(two).toContainEqual(
    expect.objectContaining({
      ...{ kind: 'denied', protocol: 'tcp', from: 'fd12::5', to: WEB, toPort: 443 },
      ...{ cause: 'ipv6', remedy: '--ipv6' },
    }),
  );
  expect(two.every((record) => record.kind === 'denied' && record.cause === 'ipv6')).toBe(true);
});

/** Asks the gateway for a name's IPv6 addresses, and tells how a connection to what it knows ends, before and after. */
const LOOK_UP = `
import socket, struct, sys
def connect():
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.settimeout(1)
    try:
        s.connect(('${WEB}', 443))
    except OSError as error:
        return type(error).__name__
def ask(name):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.'))
    s.sendto(struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + labels + struct.pack('>BHH', 0, 28, 1), (sys.argv[1], 53))
    reply = s.recv(1232)
    found = socket.inet_ntop(socket.AF_INET6, reply[-16:]) if reply[7] else ''
    return '%d%s' % (reply[3] & 15, found)
print(connect(), ask('web.example'), ask('trap.web.example'), ask('other.example'), connect())
`;

it('a name that is allowed opens its IPv6 addresses, and no other does', async () => {
  const [one, two] = (await host.module(`
    const { NetworkService } = await import('${ROOT}/src/network/service/service.ts');
    const { writeEntry } = await import('${ROOT}/src/network/entry.ts');
    const { default: dns } = await import('${ROOT}/node_modules/dns-packet/index.js');
    const { createSocket } = await import('node:dgram');
    const { writeFileSync } = await import('node:fs');
    const { execFileSync, execFile } = await import('node:child_process');
    const { promisify } = await import('node:util');
    const dir = '${dir}';
    writeFileSync(dir + '/resolv.conf', 'nameserver 127.0.0.1\\n');
    execFileSync('mount', ['--bind', dir + '/resolv.conf', '/etc/resolv.conf']);
    const upstream = createSocket('udp4');
    upstream.on('message', (packet, peer) => {
      const { id, questions } = dns.decode(packet);
      const data = questions[0].name.startsWith('trap.') ? 'fd99::1' : '${WEB}';
      const answers = [{ type: 'AAAA', name: questions[0].name, ttl: 60, data }];
      upstream.send(dns.encode({ type: 'response', id, flags: 0x180, questions, answers }), peer.port, peer.address);
    });
    await new Promise((resolve) => upstream.bind(53, '127.0.0.1', resolve));
    const policy = api.makePolicy({ allowDomains: ['web.example', '*.web.example'] });
    const client = new nft.NftClient();
    await client.ensureBase();
    const entries = ${JSON.stringify(entriesOf('names'))};
    for (const { network: { tap } } of entries) {
      const left = (await client.remains()).filter((remains) => remains.tap === tap);
      if (left.length > 0) await client.apply(left.flatMap(nft.removeVm));
    }
    for (const entry of entries) {
      const network = { ...entry.network, policy: policy.rules };
      await client.apply(nft.addVm(network));
      await writeEntry(dir, { ...entry, policy, network });
    }
    const service = await NetworkService.start({ dir, say: (text) => process.stderr.write(text + '\\n') });
    const pids = ${JSON.stringify(guests.map(({ pid }) => pid))};
    for (const [index, pid] of pids.entries()) {
      const argv = ['-t', String(pid), '--net', 'python3', '-c', ${JSON.stringify(LOOK_UP)}];
      const { gatewayAddress } = entries[index].network;
      say((await promisify(execFile)('nsenter', [...argv, gatewayAddress])).stdout.trim());
    }
    await service[Symbol.asyncDispose]();
    upstream.close();`)) as string[];
  // Reset at once; then on its way to a peer that says nothing.
  expect(one).toBe(`ConnectionRefusedError 0${WEB} 5 5 TimeoutError`);
  expect(two).toMatch(/^\w+ 0 0 5 \w+$/);
  const told = (await recordsOf('names1')).filter(({ kind }) => kind === 'dns');
  expect(told).toMatchObject([
    { recordType: 'AAAA', name: 'web.example', verdict: 'answered', addresses: [WEB] },
    {
      ...{ name: 'trap.web.example', verdict: 'rebinding', addresses: ['fd99::1'] },
      ...{ rule: 'never fc00::/7', remedy: '--allow-cidr fd99::1' },
    },
    { name: 'other.example', verdict: 'refused', remedy: '--allow-domain other.example' },
  ]);
});
