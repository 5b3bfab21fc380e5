/** VMs on a bridge: real guests, on a host of the tests' own whose bridge has a neighbour with servers. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import type { Sandbox } from '../../integration/cli/command.ts';
import { TestHost } from '../../integration/network/test-host.ts';
import { SCALE } from '../../scale.ts';
import { vmSandbox } from '../cli/host.ts';
import { agentCommand, started } from './world.ts';

const HOST = '192.0.2.1';
const NEIGHBOUR = '192.0.2.10';
const VM = '192.0.2.5';
/** Below those of our taps, whatever the kernel would draw: a bridge takes the lowest of its ports. */
const PORT_MAC = '02:00:00:00:01:00';
const ON_BRIDGE = ['--network', 'bridge=br0', '--gateway', HOST, '--dns', NEIGHBOUR];

/** Answers each request with the caller's address. */
const WEB_SERVER = `
require('node:http').createServer((request, response) => response.end(request.socket.remoteAddress + '\\n'))
  .listen(80, '${NEIGHBOUR}', () => console.log('ready'));`;

/**
 * Sends frames as a guest that is root can make them: each carries a word, the last one is what a VM may send. The
 * first argument is its address, to which all but those in another's name belong.
 */
const FORGER = `
import socket, struct, sys
own = socket.inet_aton(sys.argv[1])
nic = next(name for _, name in socket.if_nameindex() if name != 'lo')
mac = bytes.fromhex(open(f'/sys/class/net/{nic}/address').read().strip().replace(':', ''))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((nic, 0))
ALL, OTHER = b'\\xff' * 6, bytes.fromhex('020000000099')

def udp(source, word):
    data = struct.pack('!HHHH', 9, 9, 8 + len(word), 0) + word
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, source, b'\\xff' * 4)
    total = sum(struct.unpack('!10H', head))
    total = (total & 0xffff) + (total >> 16)
    return head[:10] + struct.pack('!H', ~((total & 0xffff) + (total >> 16)) & 0xffff) + head[12:] + data

def arp(hardware, address, word):
    return struct.pack('!HHBBH6s4s6s4s', 1, 0x800, 6, 4, 1, hardware, address, b'\\0' * 6, own) + word

def send(source, kind, payload):
    raw.send(ALL + source + struct.pack('!H', kind) + payload)

gateway = socket.inet_aton('${HOST}')
send(OTHER, 0x800, udp(own, b'forged-mac'))
send(mac, 0x800, udp(socket.inet_aton('192.0.2.77'), b'forged-address'))
send(mac, 0x806, arp(mac, gateway, b'forged-arp-address'))
send(mac, 0x806, arp(OTHER, own, b'forged-arp-mac'))
send(mac, 0x8100, struct.pack('!HH', 0, 0x800) + udp(own, b'forged-vid-zero'))
send(mac, 0x8100, struct.pack('!HH', 5, 0x800) + udp(own, b'forged-vlan'))
send(mac, 0x88a8, struct.pack('!HH', 5, 0x800) + udp(own, b'forged-double-vlan'))
send(mac, 0x86dd, struct.pack('!IHBB', 6 << 28, 11, 59, 64) + b'\\xfe' * 32 + b'forged-ipv6')
raw.send(bytes.fromhex('0180c2000000') + mac + struct.pack('!H', 38) + b'\\x42\\x42\\x03' + b'forged-spanning-tree'.ljust(60))
send(mac, 0x800, udp(own, b'honest-' + sys.argv[2].encode()))
`;

let box: Sandbox;
let host: TestHost;
let neighbour: TestHost;
const children: ChildProcess[] = [];

const agent = (...args: string[]) =>
  host.run(...agentCommand(box, '--log-level', 'error', ...args));
/** With what it says on stderr; never rejects. */
const told = (...args: string[]) =>
  host.run('sh', '-c', '"$@" 2>&1 || true', 'sh', ...agentCommand(box, ...args));
const info = async (vm: string) =>
  JSON.parse(await agent('net', 'show', vm, '--json')) as NetworkInfo;
const traces = async () => [
  (await host.run('ip', '-o', 'link')).match(/qmp[ab]\d+/g) ?? [],
  (await host.run('nft', 'list', 'tables')).trim(),
];
const pages = (vm: string) =>
  agent('exec', vm, '--', 'curl', '-sS', '-m', '20', `http://${NEIGHBOUR}/`, 'http://web.test/');

beforeAll(async () => {
  box = await vmSandbox();
  [host, neighbour] = [await TestHost.start(), await TestHost.start()];
  await host.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  const peer = ['peer', 'name', 'eth0', 'netns', String(neighbour.pid)];
  await host.run('ip', 'link', 'add', 'port', 'address', PORT_MAC, 'type', 'veth', ...peer);
  await host.run('ip', 'link', 'set', 'port', 'master', 'br0', 'up');
  await host.run('ip', 'address', 'add', `${HOST}/24`, 'dev', 'br0');
  await host.run('ip', 'link', 'set', 'br0', 'up');
  await neighbour.run('ip', 'address', 'add', `${NEIGHBOUR}/24`, 'dev', 'eth0');
  await neighbour.run('ip', 'link', 'set', 'eth0', 'up');
  children.push(
    await started(neighbour, process.execPath, ['-e', WEB_SERVER]),
    await started(neighbour, 'dnsmasq', [
      ...['-k', '--no-resolv', '--no-hosts', '--conf-file=/dev/null', '--bind-interfaces'],
      ...['--log-facility=-', '--user=root', `--listen-address=${NEIGHBOUR}`],
      `--address=/web.test/${NEIGHBOUR}`,
    ]),
  );
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await neighbour[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

describe('what cannot be', () => {
  it('is an error that says what to do, and leaves nothing', async () => {
    const address = ['--address', `${VM}/24`];
    expect(await told('create', '--network', 'bridge=br7', ...address)).toContain(
      'there is no interface br7',
    );
    expect(await told('create', '--network', 'bridge=port', ...address)).toContain(
      'port is no bridge',
    );
    const without = await told('create', '--network', 'bridge=br0');
    expect(without).toContain('needs an address for the VM');
    expect(without).toContain('--address 192.0.2.5/24');
    expect(await told('create', '--network', 'isolated', ...address)).toContain('bridge=NAME');
    const [file, ...rest] = agentCommand(box, 'create', '--network', 'bridge=br0', ...address);
    const refused = await host.run(
      ...['sh', '-c', '"$@" 2>&1 || true', 'sh', 'setpriv', '--bounding-set=-net_admin'],
      ...[file!, ...rest],
    );
    expect(refused).toContain('may not change network interfaces');
    expect(await agent('list', '--quiet')).toBe('');
    expect(await traces()).toEqual([[], '']);
  });
});

describe('a VM', () => {
  beforeAll(async () => {
    const said = await told('create', '--name', 'one', ...ON_BRIDGE, '--address', `${VM}/24`);
    expect(said).toContain('the network of bridge br0 is not filtered');
  });

  it('is who it was told to be: it reaches its neighbours, by name too, and they reach it', async () => {
    expect(await pages('one')).toBe(`${VM}\n${VM}\n`);
    expect(await info('one')).toMatchObject({
      mode: 'bridge=br0',
      lan: { address: `${VM}/24`, gateway: HOST, dns: [NEIGHBOUR] },
      tap: 'qmpb1',
      guestAddress: VM,
    });
    expect(await agent('inspect', 'one')).toContain('"network": "bridge=br0"');
    const serve = '(cd /etc; exec python3 -m http.server 8000 >/dev/null 2>&1) </dev/null &';
    await agent('exec', 'one', '--', 'bash', '-c', serve);
    await vi.waitFor(
      async () => {
        const page = await neighbour.run('curl', '-sS', '-m', '20', `http://${VM}:8000/os-release`);
        expect(page).toContain('Debian');
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
  });

  it('cannot be anybody else, nor speak anything but IPv4, where its guard is flushed either; it can where all is taken away, until gc', async () => {
    let seen = '';
    const [file, args] = neighbour.command([
      'tcpdump',
      '-i',
      'eth0',
      '-A',
      '-l',
      '-n',
      '--immediate-mode',
    ]);
    const capture = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(capture);
    capture.stdout.setEncoding('latin1').on('data', (text: string) => (seen += text));
    await once(capture.stderr, 'data'); // it listens
    const forge = async (word: string) => {
      const run = ['exec', '--user', 'root', 'one', '--', 'python3', '-c', FORGER, VM, word];
      await agent(...run);
      await vi.waitFor(() => expect(seen).toContain(`honest-${word}`), { timeout: 20_000 * SCALE });
    };
    const pcap = join(box.dir, 'forged.pcap');
    const [program, words] = host.command(agentCommand(box, 'net', 'capture', 'one', '-o', pcap));
    const own = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] });
    children.push(own);
    await once(own.stderr, 'data'); // as does ours, at the VM's side of the guard
    await forge('guarded');
    expect(seen.match(/forged-[a-z-]+/g)).toBeNull();
    own.kill('SIGINT');
    expect(await once(own, 'exit')).toEqual([0, null]);
    const tried = (await readFile(pcap, 'latin1')).match(/forged-[a-z-]+/g);
    expect(new Set(tried).size).toBe(9);
    expect(await host.run('tc', '-s', 'qdisc', 'show', 'dev', 'qmpb1')).toMatch(/dropped [1-9]/);
    await host.run('nft', 'flush', 'ruleset');
    await forge('flushed');
    expect(seen.match(/forged-[a-z-]+/g)).toBeNull();
    await host.run('tc', 'qdisc', 'delete', 'dev', 'qmpb1', 'clsact');
    await forge('unguarded');
    expect(new Set(seen.match(/forged-[a-z-]+/g)).size).toBe(9);
    await agent('gc'); // puts it back
    seen = '';
    await forge('again');
    expect(seen.match(/forged-[a-z-]+/g)).toBeNull();
    capture.kill('SIGKILL');
  });

  it('has its address and its guard again when it is put back, and started again; its children would have its address', async () => {
    await agent('snapshot', 'create', 'one', 's');
    await agent('snapshot', 'restore', 'one', 's');
    expect(await pages('one')).toBe(`${VM}\n${VM}\n`);
    expect(await told('fork', 'one')).toContain('its children would have its address');
    await agent('stop', 'one');
    expect(await traces()).toEqual([[], '']);
    await agent('start', 'one');
    expect(await pages('one')).toBe(`${VM}\n${VM}\n`);
    expect(await traces()).toEqual([['qmpb1'], 'table netdev qmp_agent_qmpb1']);
    await agent('suspend', 'one');
    expect(await traces()).toEqual([[], '']);
    await agent('resume', 'one');
    expect(await pages('one')).toBe(`${VM}\n${VM}\n`);
  });

  it('whose QEMU was killed leaves a tap to gc, and nothing afterwards', async () => {
    const { pid } = (JSON.parse(await agent('inspect', 'one')) as { pid: number }[])[0]!;
    process.kill(pid, 'SIGKILL');
    await vi.waitFor(
      async () => {
        await agent('gc');
        expect(await traces()).toEqual([[], '']);
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    await agent('remove', '--force', 'one');
  });
});

it('clones of a template on a bridge need addresses of their own', async () => {
  await agent('template', 'create', 'lan', ...ON_BRIDGE, '--address', `${VM}/24`);
  expect(await told('clone', 'lan')).toContain('needs an address for the VM');
  expect(
    await told('clone', 'lan', '--network', 'isolated', '--address', '192.0.2.6/24'),
  ).toContain('bridge=NAME');
  await agent('clone', 'lan', '--name', 'six', '--address', '192.0.2.6/24', '--dns', NEIGHBOUR);
  await agent('clone', 'lan', '--name', 'shut', '--network', 'isolated');
  expect(await pages('six')).toBe('192.0.2.6\n192.0.2.6\n');
  expect(await info('shut')).toMatchObject({ mode: 'isolated' });
  await agent('remove', '--force', 'six', 'shut');
  expect(await traces()).toEqual([[], '']);
  await agent('template', 'remove', 'lan');
});
