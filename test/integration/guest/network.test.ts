/**
 * The agent's network against a real kernel: in namespaces of its own, whose sysfs says that one end of a veth
 * pair is the VM's network device. The other end is a gateway, in a namespace of its own too.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { agentFiles, FFI_FILE } from '../../../guest-agent/bundle.ts';
import type { NetworkUp } from '../../../guest-agent/protocol.ts';
import type { GuestSession } from '../../../src/guest/index.ts';
import { SCALE } from '../../scale.ts';
import { LocalAgent } from './local-agent.ts';

const execFileAsync = promisify(execFile);

const MAC = '02:23:45:67:89:ab';
const GATEWAY_MAC = '02:71:6d:70:61:01';
const V6 = {
  ...{ address: 'fd12:3456::1f', prefix: 127 },
  ...{ gateway: 'fd12:3456::1e', gatewayMac: GATEWAY_MAC },
};
const V4: NetworkUp = {
  ...{ up: true, mac: MAC, address: '192.0.2.1', prefix: 31, dns: [] },
  ...{ gateway: '192.0.2.0', gatewayMac: GATEWAY_MAC },
};
const BOTH: NetworkUp = { ...V4, v6: V6 };

/** A guest as its kernel leaves it: one device that is down, and all of IPv6 as it comes. */
const GUEST = `
mount --make-rprivate /
ip link set lo up
ip link add eth0 type veth peer name host0
mount -t tmpfs tmpfs /sys/class/net
mkdir -p /sys/class/net/eth0/device
ip -o link show eth0 | cut -d: -f1 > /sys/class/net/eth0/ifindex
touch /sys/class/net/eth0/mtu
echo ready
exec sleep infinity
`;
/** What the host has of it, and an address that lies behind it. */
const GATEWAY = `
set -e
ip link set lo up
ip address add 2001:db8::53/128 dev lo
ip link set host0 address ${GATEWAY_MAC}
echo 1 > /proc/sys/net/ipv6/conf/host0/addr_gen_mode
ip link set host0 up
ip address add ${V6.gateway}/127 dev host0 nodad
ip neighbour add ${V6.address} lladdr ${MAC} dev host0 nud permanent
`;
/** Answers each datagram with the address that it came from. */
const ECHO = `
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('2001:db8::53', 7))
print('ready', flush=True)
while True:
    _, peer = s.recvfrom(64)
    s.sendto(peer[0].encode(), peer)
`;
const ASK = `
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(${5 * SCALE})
s.sendto(b'x', ('2001:db8::53', 7))
print(s.recv(64).decode())
`;
/** A router that nobody asked. */
const ADVERTISE = `
import socket, struct
source = socket.inet_pton(socket.AF_INET6, 'fe80::bad')
all_nodes = socket.inet_pton(socket.AF_INET6, 'ff02::1')
def advert(checksum):
    return struct.pack('>BBHBBHII', 134, 0, checksum, 64, 0, 1800, 0, 0)
pseudo = source + all_nodes + struct.pack('>II', 16, 58) + advert(0)
total = sum(struct.unpack('>%dH' % (len(pseudo) // 2), pseudo))
while total >> 16:
    total = (total & 0xffff) + (total >> 16)
packet = struct.pack('>IHBB', 0x60000000, 16, 58, 255) + source + all_nodes + advert(total ^ 0xffff)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('host0', 0))
s.send(bytes.fromhex('333300000001${GATEWAY_MAC.replaceAll(':', '')}86dd') + packet)
`;

const enter = ({ pid }: ChildProcess, ...argv: string[]): [string, string[]] => [
  'nsenter',
  ['-t', String(pid), '--net', '--mount', '--', ...argv],
];
async function runIn(where: ChildProcess, ...argv: string[]): Promise<string> {
  return (await execFileAsync(...enter(where, ...argv))).stdout;
}
async function startIn(where: ChildProcess | undefined, ...argv: string[]): Promise<ChildProcess> {
  const [file, args] = where === undefined ? [argv[0]!, argv.slice(1)] : enter(where, ...argv);
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error(`${argv.join(' ')} ended`))),
  ]);
  return child;
}
async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

let guest: ChildProcess;
let gateway: ChildProcess;
beforeAll(async () => {
  guest = await startIn(undefined, 'unshare', '--net', '--mount', 'sh', '-ec', GUEST);
  const keep = 'echo ready; exec sleep infinity';
  gateway = await startIn(undefined, 'unshare', '--net', '--mount', 'sh', '-c', keep);
  await runIn(guest, 'ip', 'link', 'set', 'host0', 'netns', String(gateway.pid));
  await runIn(gateway, 'sh', '-ec', GATEWAY);
});
afterAll(async () => {
  await end(gateway);
  await end(guest);
});

const inGuest = (...argv: string[]) => runIn(guest, ...argv);
const lines = (text: string) =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
/** What the guest has of IPv6 on its interface. */
async function v6() {
  const addresses = lines(await inGuest('ip', '-6', '-o', 'address', 'show', 'dev', 'eth0'));
  const routes = lines(await inGuest('ip', '-6', 'route', 'show', 'dev', 'eth0', 'default'));
  const neighbours = lines(await inGuest('ip', '-6', 'neighbour', 'show', 'dev', 'eth0'));
  const conf = '/proc/sys/net/ipv6/conf/eth0';
  const names = ['disable_ipv6', 'accept_ra', 'addr_gen_mode'].map((name) => `${conf}/${name}`);
  const settings = lines(await inGuest('cat', ...names)).join(' ');
  return {
    addresses: addresses.map((line) => line.replace(/^.*inet6 (\S+).*$/, '$1')),
    isTentative: addresses.some((line) => line.includes('tentative')),
    routes: routes.map((line) => line.replace(/ (proto|metric) .*/, '')),
    neighbours: neighbours.map((line) => line.replace(/ router/, '')),
    settings,
  };
}
const OFF = { addresses: [], isTentative: false, routes: [], neighbours: [] };
const ON = {
  addresses: [`${V6.address}/127`],
  isTentative: false,
  routes: [`default via ${V6.gateway}`],
  neighbours: [`${V6.gateway} lladdr ${GATEWAY_MAC} PERMANENT`],
  settings: '0 0 1',
};

describe.each([
  ['rtnetlink', true],
  ['the program ip', false],
])('by %s', (_, hasLibc) => {
  let agent: LocalAgent;
  let session: GuestSession;
  beforeAll(async () => {
    const { files, ...rest } = await agentFiles();
    const program = hasLibc ? files : files.filter(({ name }) => name !== FFI_FILE);
    const [file, args] = enter(guest);
    agent = await LocalAgent.start({ ...rest, files: program }, [file, ...args]);
    session = await agent.connect();
    return async () => {
      await session.close();
      await agent[Symbol.asyncDispose]();
    };
  });
  beforeEach(() => session.setNetwork({ up: false }));

  it('IPv6 is off where nothing is said of it', async () => {
    await session.setNetwork(V4);
    expect(await v6()).toMatchObject({ ...OFF, settings: expect.stringMatching(/^1 0/) });
    expect(await inGuest('cat', '/proc/sys/net/ipv6/conf/default/disable_ipv6')).toBe('1\n');
  });

  it('has its address at once, nobody asks anybody, and its way out is the gateway', async () => {
    const echo = await startIn(gateway, 'python3', '-c', ECHO);
    const dump = spawn(...enter(gateway, 'tcpdump', '-nlU', '-i', 'host0', 'ip6'));
    let seen = '';
    dump.stdout.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await once(dump.stderr, 'data');
    await session.setNetwork(BOTH);
    expect(await inGuest('python3', '-c', ASK)).toBe(`${V6.address}\n`);
    expect(await v6()).toEqual(ON);
    const v4 = await inGuest('ip', '-4', '-o', 'address', 'show', 'dev', 'eth0');
    expect(v4).toContain('192.0.2.1/31');
    await expect.poll(() => seen, { timeout: 10_000 * SCALE }).toContain('UDP');
    await end(dump);
    await end(echo);
    const said = lines(seen).filter((line) => !line.includes('multicast listener report'));
    expect(said.map((line) => line.replace(/^\S+ /, '')).sort()).toEqual([
      expect.stringMatching(/^IP6 2001:db8::53\.7 > fd12:3456::1f\.\d+: UDP, length 13$/),
      expect.stringMatching(/^IP6 fd12:3456::1f\.\d+ > 2001:db8::53\.7: UDP, length 1$/),
    ]);
  });

  it('heeds no router', async () => {
    await session.setNetwork(BOTH);
    await runIn(gateway, 'python3', '-c', ADVERTISE);
    expect((await v6()).routes).toEqual(ON.routes);
    // The same to one who would listen.
    await inGuest('sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra');
    await runIn(gateway, 'python3', '-c', ADVERTISE);
    await expect
      .poll(async () => (await v6()).routes, { timeout: 5_000 * SCALE })
      .toContain('default via fe80::bad');
    await session.setNetwork({ up: false });
    await session.setNetwork(V4);
    await session.setNetwork(BOTH);
    expect(await v6()).toEqual(ON);
  });

  it('a copy has its own and none of its template’s, whichever of them has IPv6', async () => {
    const other = { ...V6, address: 'fd12:3456::21', gateway: 'fd12:3456::20' };
    const none = async () => expect(await v6()).toMatchObject(OFF);
    await session.setNetwork(BOTH);
    await session.setNetwork({ up: false });
    await none();
    await session.setNetwork({ ...V4, v6: other });
    expect((await v6()).addresses).toEqual(['fd12:3456::21/127']);
    expect((await v6()).routes).toEqual(['default via fd12:3456::20']);
    await session.setNetwork(V4); // without going down before
    await none();
    await session.setNetwork({ up: false });
    await session.setNetwork(BOTH);
    expect(await v6()).toEqual(ON);
    await session.setNetwork({ up: false });
    await session.setNetwork(V4);
    await none();
  });

  it('keeps no address that the guest had itself, though it said that they stay', async () => {
    await session.setNetwork(BOTH);
    await inGuest('sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down');
    await inGuest('ip', 'address', 'add', 'fd00::77/64', 'dev', 'eth0', 'nodad');
    await session.setNetwork({ up: false });
    expect((await v6()).addresses).toEqual([]);
    await session.setNetwork(BOTH);
    await inGuest('ip', 'address', 'add', 'fd00::77/64', 'dev', 'eth0', 'nodad');
    await session.setNetwork(BOTH);
    expect((await v6()).addresses).toEqual([`${V6.address}/127`]);
    await inGuest('sh', '-c', 'echo 0 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down');
  });

  it('tells what the kernel refuses, in words', async () => {
    const wrong = { ...BOTH, v6: { ...V6, prefix: 127, gateway: V6.address } }; // a route to itself
    await expect(session.setNetwork(wrong)).rejects.toThrow(
      hasLibc
        ? /the default route by fd12:3456::1f cannot be set: E/
        : /ip -6 route replace default/,
    );
  });
});
