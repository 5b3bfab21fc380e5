/**
 * A network of namespaces of the tests' own: a host with the rules, two VMs (veth pairs stand in for taps), and
 * an upstream that has every address that a VM should and should not reach.
 */
import { randomBytes } from 'node:crypto';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import {
  addVm,
  changePolicy,
  DEFAULT_POLICY,
  LOG_GROUP,
  type NetworkPolicy,
  NftClient,
  readLogPrefix,
  readMark,
  TAP_GROUP,
  type VmNetwork,
} from '../../../nft/index.ts';

/** nft of another version, for those who have one. */
const NFT = process.env['QMP_AGENT_TEST_NFT'] ?? 'nft';

/** Why these tests cannot run here; undefined where they can. */
export function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  try {
    execFileSync('nft', ['--version'], { stdio: 'ignore' });
    execFileSync('python3', ['--version'], { stdio: 'ignore' });
    const name = `qmp-agent-probe-${randomBytes(3).toString('hex')}`;
    execFileSync('ip', ['netns', 'add', name], { stdio: 'ignore' });
    execFileSync('ip', ['netns', 'delete', name]);
    return undefined;
  } catch (error) {
    return `no network namespaces, nft or python3: ${String(error)}`;
  }
}

export const UP_ADDRESSES = [
  '203.0.113.10',
  '203.0.113.11',
  '10.1.2.3',
  '10.1.2.4',
  '100.64.0.1',
  '169.254.169.254',
  '172.16.0.5',
  '192.168.1.10',
  '198.18.0.1',
];
/** Public addresses of the upstream: of a range that was given back, so that nobody has them. */
export const SITE6 = '3ffe:ffff::10';
export const OTHER_SITE6 = '3ffe:ffff::11';
/** The host's own, towards the upstream. */
export const HOST6 = '3ffe:ffff:0:1::1';
export const UP6 = '3ffe:ffff:0:1::2';
const UP_ADDRESSES6 = [
  ...[SITE6, OTHER_SITE6, 'fd12:3456::1', 'fd12:3456::2', 'fd00:ec2::254', 'fec0::1', '4000::1'],
  ...['64:ff9b::a9fe:a9fe', '100::1', '2001::1', '2001:db8::1', '2002:a01:203::1', '3fff::1'],
  ...['5f00::1', '64:ff9b:1::1'],
];
const UP_PORTS = [22, 25, 53, 80, 443, 853, 5432, 8080, 9418];
const UP_UDP_PORTS = [53, 123, 443, 5353];

export type LogEntry =
  | { verdict: 'allow'; ruleId: number | undefined; tap: string }
  | { verdict: 'deny'; cause: string; ruleId: number | undefined; tap: string };

interface RawEntry {
  prefix: string;
  mark: number;
  in: string;
  out: string;
}

/** What a peer runs. */
export const PEER_SCRIPT = fileURLToPath(new URL('peer.py', import.meta.url));

/** A process in a namespace or a guest, see peer.py. */
export class Peer {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  /** @param command that runs the script */
  constructor([program = '', ...args]: readonly string[], env = process.env) {
    this.#process = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
    this.#reader = createInterface({ input: this.#process.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async ready(): Promise<void> {
    await this.#lines.next();
  }

  async do(request: string, o: object = {}): Promise<unknown> {
    this.#process.stdin!.write(`${JSON.stringify({ do: request, ...o })}\n`);
    const line = await this.#lines.next();
    if (line.done === true) throw new Error(`the peer ended at ${request} ${JSON.stringify(o)}`);
    return JSON.parse(line.value) as unknown;
  }

  close(): void {
    this.#process.kill('SIGKILL');
    this.#reader.close();
  }
}

export interface TestVm {
  readonly network: VmNetwork;
  readonly peer: Peer;
  /** Ends of an honest frame. */
  readonly ends: { from: string; to: string };
}

export interface TestNetworkOptions {
  /** Default: 2. */
  vms?: number;
  /** How many of them, from the first, have IPv6. Default: none, and nobody else has it either. */
  vms6?: number;
}

/** One network; `close` takes all of it away. */
export class TestNetwork {
  readonly #prefix = `qmp-agent-${randomBytes(4).toString('hex')}`;
  readonly #namespaces: string[] = [];
  readonly #peers: Peer[] = [];
  host!: Peer;
  up!: Peer;
  vms: TestVm[] = [];
  client!: NftClient;

  static async create(o: TestNetworkOptions = {}): Promise<TestNetwork> {
    const network = new TestNetwork();
    try {
      await network.#build({ vms: 2, vms6: 0, ...o });
      return network;
    } catch (error) {
      network.close();
      throw error;
    }
  }

  /** A command in one of the namespaces `host`, `up`, `vm1`, `vm2`. */
  run(where: string, ...argv: string[]): string {
    const all = ['netns', 'exec', `${this.#prefix}-${where}`, ...argv];
    return execFileSync('ip', all, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** nft on the host, as a person or another program would call it. */
  nft(...argv: string[]): string {
    return this.run('host', NFT, ...argv);
  }

  /** How to call nft on the host of this network. */
  get nftCommand(): string[] {
    return ['ip', 'netns', 'exec', `${this.#prefix}-host`, NFT];
  }

  /** What was logged since the last call. */
  async logs(o: { waitS?: number } = {}): Promise<LogEntry[]> {
    const raw = (await this.host.do('take', { id: 'log', ...o })) as RawEntry[];
    return raw.map(readEntry);
  }

  /** Frames that reached the upstream since the last call, as hex. */
  async arrived(): Promise<string[]> {
    return (await this.up.do('take', { id: 'frames' })) as string[];
  }

  /** Puts another policy in place of a VM's. */
  async change(index: number, policy: Partial<NetworkPolicy>, generation?: number): Promise<void> {
    const vm = this.vms[index]!;
    const after: VmNetwork = {
      ...vm.network,
      generation: generation ?? vm.network.generation,
      policy: { ...vm.network.policy, ...policy },
    };
    await this.client.apply(changePolicy(vm.network, after));
    this.vms[index] = { ...vm, network: after };
  }

  close(): void {
    this.#peers.forEach((peer) => peer.close());
    for (const name of this.#namespaces) {
      execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
    }
  }

  async #build({ vms: count, vms6 }: Required<TestNetworkOptions>): Promise<void> {
    this.client = new NftClient({ command: this.nftCommand });
    for (const name of ['host', 'up', ...Array.from({ length: count }, (_, i) => `vm${i + 1}`)]) {
      execFileSync('ip', ['netns', 'add', `${this.#prefix}-${name}`]);
      this.#namespaces.push(`${this.#prefix}-${name}`);
      const settings = vms6 > 0 ? PLAIN_IPV6 : NO_IPV6;
      for (const one of ['all', 'default']) {
        this.#sysctl(name, ...settings.map((setting) => `net.ipv6.conf.${one}.${setting}`));
      }
    }
    this.#cables();
    if (vms6 > 0) this.#cables6();
    await this.client.ensureBase({
      rates: { deniedPerSecond: 50_000, deniedBurst: 50_000, allowedPerSecond: 50_000 },
    });
    const networks = Array.from({ length: count }, (_, index) =>
      vmNetwork(index, DEFAULT_POLICY, index < vms6),
    );
    for (const network of networks) await this.#attach(network);
    const [host, up, ...guests] = await this.#startPeers(['host', 'up', ...networks.map(vmName)]);
    [this.host, this.up] = [host!, up!];
    this.vms = networks.map((network, index) => ({
      network,
      peer: guests[index]!,
      ends: { from: network.mac, to: hostMac(index) },
    }));
    await this.#listen('0.0.0.0');
    if (vms6 > 0) await this.#listen('::');
    await this.up.do('sniff', { id: 'frames', dev: 'up0' });
    const bound = await this.host.do('nflog', { id: 'log', group: LOG_GROUP });
    if (bound !== 'ok') throw new Error(`nflog: ${String(bound)}`);
  }

  #cables(): void {
    this.#link('host', 'up0', 'up', 'up0');
    this.#ip('host', 'address', 'add', '198.51.100.1/24', 'dev', 'up0');
    this.#ip('host', 'link', 'set', 'lo', 'up');
    this.#ip('host', 'link', 'set', 'up0', 'up');
    this.#ip('up', 'address', 'add', '198.51.100.2/24', 'dev', 'up0');
    this.#ip('up', 'link', 'set', 'lo', 'up');
    this.#ip('up', 'link', 'set', 'up0', 'up');
    for (const address of UP_ADDRESSES) this.#ip('up', 'address', 'add', address, 'dev', 'lo');
    this.#ip('host', 'route', 'add', 'default', 'via', '198.51.100.2');
    this.#sysctl('host', 'net.ipv4.ip_forward=1', 'net.ipv4.icmp_ratemask=0');
  }

  #cables6(): void {
    const macs = { host: '02:dd:00:00:00:01', up: '02:dd:00:00:00:02' } as const;
    for (const [where, address, other, next] of [
      ['host', HOST6, 'up', UP6],
      ['up', UP6, 'host', HOST6],
    ] as const) {
      this.#ip(where, 'link', 'set', 'up0', 'address', macs[where]);
      this.#ip(where, 'address', 'add', `${address}/64`, 'dev', 'up0', 'nodad');
      this.#neighbour(where, next, macs[other], 'up0');
    }
    for (const address of UP_ADDRESSES6) {
      this.#ip('up', 'address', 'add', address, 'dev', 'lo', 'nodad');
    }
    this.#ip('host', '-6', 'route', 'add', 'default', 'via', UP6);
    this.#sysctl('host', 'net.ipv6.conf.all.forwarding=1', 'net.ipv6.icmp.ratelimit=0');
  }

  /** No neighbour discovery anywhere, as on a host. */
  #neighbour(where: string, address: string, mac: string, dev: string): void {
    const entry = ['lladdr', mac, 'dev', dev, 'nud', 'permanent'];
    this.#ip(where, '-6', 'neighbour', 'add', address, ...entry);
  }

  #attach6({ tap, mac, v6 }: VmNetwork, vm: string): void {
    if (v6 === undefined) return;
    this.#ip('host', 'address', 'add', `${v6.gatewayAddress}/127`, 'dev', tap, 'nodad');
    this.#neighbour('host', v6.guestAddress, mac, tap);
    this.#ip(vm, 'address', 'add', `${v6.guestAddress}/127`, 'dev', 'eth0', 'nodad');
    this.#neighbour(vm, v6.gatewayAddress, hostMac(index(tap)), 'eth0');
    this.#ip(vm, '-6', 'route', 'add', 'default', 'via', v6.gatewayAddress);
  }

  async #attach(network: VmNetwork): Promise<void> {
    const { tap, mac, guestAddress, gatewayAddress } = network;
    const vm = vmName(network);
    this.#link('host', tap, vm, 'eth0');
    this.#ip(
      'host',
      'link',
      'set',
      tap,
      'group',
      String(TAP_GROUP),
      'address',
      hostMac(index(tap)),
    );
    await this.client.apply(addVm(network));
    this.#ip('host', 'address', 'add', `${gatewayAddress}/30`, 'dev', tap);
    this.#ip('host', 'link', 'set', tap, 'up');
    this.#ip(vm, 'link', 'set', 'eth0', 'address', mac);
    this.#ip(vm, 'address', 'add', `${guestAddress}/30`, 'dev', 'eth0');
    this.#ip(vm, 'link', 'set', 'lo', 'up');
    this.#ip(vm, 'link', 'set', 'eth0', 'up');
    this.#ip(vm, 'route', 'add', 'default', 'via', gatewayAddress);
    this.#attach6(network, vm);
  }

  async #startPeers(names: readonly string[]): Promise<Peer[]> {
    const peers = names.map(
      (name) =>
        new Peer(['ip', 'netns', 'exec', `${this.#prefix}-${name}`, 'python3', PEER_SCRIPT]),
    );
    this.#peers.push(...peers);
    for (const peer of peers) await peer.ready();
    return peers;
  }

  async #listen(address: string): Promise<void> {
    await this.up.do('listen', { address, tcp: UP_PORTS, udp: UP_UDP_PORTS });
    await this.host.do('listen', { address, tcp: [53, 22, 8080], udp: [53, 161] });
    for (const { peer } of this.vms) {
      await peer.do('listen', { address, tcp: [80, 8080], udp: [80] });
    }
  }

  #link(where: string, name: string, other: string, otherName: string): void {
    const [one, two] = [`${this.#prefix}-${where}`, `${this.#prefix}-${other}`];
    execFileSync('ip', [
      ...['link', 'add', name, 'netns', one, 'type', 'veth'],
      ...['peer', 'name', otherName, 'netns', two],
    ]);
  }

  #ip(where: string, ...argv: string[]): void {
    execFileSync('ip', ['-netns', `${this.#prefix}-${where}`, ...argv]);
  }

  #sysctl(where: string, ...settings: string[]): void {
    this.run(where, 'sysctl', '-q', '-w', ...settings);
  }
}

const index = (tap: string): number => Number(tap.slice('tvm'.length)) - 1;
const vmName = ({ tap }: VmNetwork): string => `vm${index(tap) + 1}`;
const hostMac = (vm: number): string => `02:aa:00:00:00:0${vm + 1}`;

const NO_IPV6 = ['disable_ipv6=1'];
/** No link-local addresses, nothing looked for; reports of groups that were joined at once, and not some cases later. */
const PLAIN_IPV6 = [
  ...['addr_gen_mode=1', 'accept_ra=0', 'dad_transmits=0', 'accept_dad=0'],
  'mldv2_unsolicited_report_interval=1',
];

/**
 * The VM at a place: tap `tvm1`, address 10.210.0.2, gateway 10.210.0.1, and so on; with IPv6 fd00:210::1 and
 * fd00:210::0, and so on.
 */
export function vmNetwork(place: number, policy: NetworkPolicy, ipv6 = false): VmNetwork {
  const address6 = (number: number) => `fd00:210::${number.toString(16)}`;
  return {
    tap: `tvm${place + 1}`,
    mac: `02:bb:00:00:00:0${place + 1}`,
    guestAddress: `10.210.0.${place * 4 + 2}`,
    gatewayAddress: `10.210.0.${place * 4 + 1}`,
    ...(ipv6
      ? { v6: { guestAddress: address6(place * 2 + 1), gatewayAddress: address6(place * 2) } }
      : {}),
    generation: 1,
    policy,
  };
}

function readEntry(raw: RawEntry): LogEntry {
  const said = readLogPrefix(raw.prefix);
  if (said === undefined) throw new Error(`a log that is not ours: ${raw.prefix}`);
  const meaning = readMark(raw.mark);
  const ruleId = meaning?.kind === 'rule' ? meaning.ruleId : undefined;
  const tap = raw.in.startsWith('tvm') ? raw.in : raw.out;
  return said.verdict === 'allow'
    ? { verdict: 'allow', ruleId, tap }
    : { verdict: 'deny', cause: said.cause, ruleId, tap };
}

/**
 * A network for all tests of a file, which are skipped where there can be none.
 * @param take gets it, once it is made
 */
export function useTestNetwork(take: (net: TestNetwork) => void, o: TestNetworkOptions = {}): void {
  const skip = whyNot();
  let net: TestNetwork | undefined;
  beforeAll(async () => {
    if (skip !== undefined) return;
    net = await TestNetwork.create(o);
    take(net);
  });
  afterAll(() => net?.close());
  beforeEach((context) => {
    if (skip !== undefined) context.skip(skip);
  });
}
