/** A host of the tests' own with an internet behind it: a name server, web servers, a private network. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import type { TrafficRecord } from '../../../src/network/index.ts';
import { NODE_ARGS, type Sandbox } from '../../integration/cli/command.ts';
import { TestHost } from '../../integration/network/test-host.ts';
import { Peer, PEER_SCRIPT } from '../../integration/nft/network.ts';
import { processesOf, vmSandbox } from '../cli/host.ts';
import { Capture } from './capture.ts';

export const WEB = '203.0.113.10';
export const OTHER = '203.0.113.11';
export const NAMES = '203.0.113.53';
/** For servers that a test brings along; their names lead to them. */
export const GIT = '203.0.113.20';
export const NPM = '203.0.113.21';
export const PIP = '203.0.113.22';
export const LAN = '10.1.2.3';
export const METADATA = '169.254.169.254';
/** Of the LAN, too. */
export const RESERVED = ['172.16.0.5', '192.168.1.10', '100.64.0.1', '198.18.0.1'];
export const HOST = '203.0.113.1';
export const UPSTREAM = '203.0.113.254';
/** In IPv6, of what is given out for the Internet: what is for documentation is reserved. */
export const WEB6 = '2a00:2::10';
export const OTHER6 = '2a00:2::11';
export const LAN6 = 'fd77::3';
/** In the host's own network. */
export const NEAR6 = '2a00:1::10';
export const HOST6 = '2a00:1::1';
const UPSTREAM6 = '2a00:1::fe';

/** Answers each request with the address it came to and the one it came from. */
const WEB_SERVER = `
const { createServer } = require('node:http');
const [where] = process.argv.slice(1);
for (const at of where.split(',')) {
  const [, address, port] = /^\\[?(.*?)\\]?:(\\d+)$/.exec(at);
  createServer((request, response) => {
    if (request.url === '/big') return response.end(Buffer.alloc(1048576));
    if (request.url !== '/slow') return response.end(at + ' ' + request.socket.remoteAddress + '\\n');
    const timer = setInterval(() => response.write('.\\n'), 100);
    response.on('close', () => clearInterval(timer));
  }).listen(Number(port), address);
}
console.log('ready');`;

/** See above. All of it is gone with it. */
export class World implements AsyncDisposable {
  readonly box: Sandbox;
  #host: TestHost;
  readonly #internet: TestHost;
  readonly #servers: ChildProcess[];
  readonly #peers: Peer[] = [];

  private constructor(box: Sandbox, hosts: [TestHost, TestHost], servers: ChildProcess[]) {
    this.box = box;
    [this.#host, this.#internet] = hosts;
    this.#servers = servers;
  }

  static async create(): Promise<World> {
    const box = await vmSandbox();
    const [host, internet] = [await TestHost.start(), await TestHost.start()];
    await connect(box, host, internet);
    const records = [
      `/web.test/${WEB}`,
      `/other.test/${OTHER}`,
      `/lan.test/${LAN}`,
      `/sub.web.test/${OTHER}`,
      `/git.test/${GIT}`,
      `/npm.test/${NPM}`,
      `/pip.test/${PIP}`,
      `/six.test/${WEB6}`,
      `/both.test/${WEB}`,
      `/both.test/${WEB6}`,
      `/lan6.test/${LAN6}`,
    ];
    await writeFile(join(box.dir, 'hosts'), '');
    const servers = [
      await started(internet, 'dnsmasq', [
        ...[
          '-k',
          '--no-resolv',
          '--no-hosts',
          '--conf-file=/dev/null',
          '--bind-interfaces',
          '--log-facility=-',
        ],
        ...[
          '--user=root',
          `--addn-hosts=${join(box.dir, 'hosts')}`,
          `--listen-address=${NAMES}`,
          '--local=/test/',
          '--cname=alias.test,moving.test',
          '--txt-record=text.test,hello',
          ...records.map((a) => `--address=${a}`),
        ],
      ]),
      await started(internet, process.execPath, [
        '-e',
        WEB_SERVER,
        [
          ...[`${WEB}:80`, `${WEB}:8080`, `${OTHER}:80`, `${LAN}:80`, `${METADATA}:80`],
          ...[`[${WEB6}]:80`, `[${WEB6}]:8080`, `[${OTHER6}]:80`, `[${LAN6}]:80`, `[${NEAR6}]:80`],
        ].join(','),
      ]),
      await started(host, process.execPath, [
        ...['-e', WEB_SERVER, `${HOST}:80,127.0.0.1:80,[${HOST6}]:80`],
      ]),
    ];
    return new World(box, [host, internet], servers);
  }

  /** A command of the host. */
  run(...argv: string[]): Promise<string> {
    return this.#host.run(...argv);
  }

  /** A command of the internet's. */
  runUpstream(...argv: string[]): Promise<string> {
    return this.#internet.run(...argv);
  }

  /** `qmp-agent …` on the host. @returns stdout */
  agent(...args: string[]): Promise<string> {
    return this.agentWith([], ...args);
  }

  /** @param more variables, `NAME=value` */
  async agentWith(more: readonly string[], ...args: string[]): Promise<string> {
    return this.run('env', ...more, ...agentCommand(this.box, '--log-level', 'error', ...args));
  }

  /** Runs the text of a module on the host; see `TestHost.module`. */
  module(body: string): Promise<unknown[]> {
    return this.#host.module(body);
  }

  /** Starts `qmp-agent …` on the host, output to us, complaints to whoever runs the tests. */
  start(...args: string[]): ChildProcess {
    return this.startWith('inherit', ...args);
  }

  /** @param stderr `pipe`: to us, too */
  startWith(stderr: 'inherit' | 'pipe', ...args: string[]): ChildProcess {
    const [file, argv] = this.#host.command([
      process.execPath,
      ...NODE_ARGS,
      '--log-level',
      'error',
      ...args,
    ]);
    return spawn(file, argv, {
      stdio: ['ignore', 'pipe', stderr],
      env: { ...process.env, ...this.box.env },
    });
  }

  /** What a line of bash prints in a VM. */
  bash(vm: string, line: string): Promise<string> {
    return this.agent('exec', vm, '--', 'bash', '-c', line);
  }

  /** What a VM gets from each URL: who answered, or `failed` with curl's exit code. */
  async fetched(vm: string, ...urls: string[]): Promise<string[]> {
    const curl = (url: string) =>
      `curl -sS -m 10 ${url} 2>/dev/null | grep . || echo "failed \${PIPESTATUS[0]}"`;
    const text = await this.bash(vm, urls.map(curl).join('\n'));
    return text
      .trim()
      .split('\n')
      .map((line) => line.replace(/(^\S+:\d+) \S+$/, '$1'));
  }

  /** What a VM did. */
  async records(vm: string, what = 'log'): Promise<TrafficRecord[]> {
    return (await this.agent('net', what, vm, '--json'))
      .trim()
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as TrafficRecord);
  }

  async info(vm: string): Promise<NetworkInfo> {
    return JSON.parse(await this.agent('net', 'show', vm, '--json')) as NetworkInfo;
  }

  /**
   * The host loses its power and boots: its processes, interfaces, rules, settings and `/run` are gone; disks,
   * and what is set at boot, are not.
   */
  async reboot(): Promise<void> {
    const settings = await this.run('sh', '-c', 'cat /etc/sysctl.d/*.conf');
    const internets = new Set(this.#servers.map(({ pid }) => pid)); // files of the box are named by them too
    for (const line of await processesOf(this.box)) {
      const pid = Number.parseInt(line, 10);
      if (!internets.has(pid)) killIfThere(pid);
    }
    await this.#internet.run('ip', 'link', 'delete', 'eth0');
    await this.#host[Symbol.asyncDispose]();
    const runtime = join(this.box.dir, 'run');
    for (const name of await readdir(runtime))
      await rm(join(runtime, name), { recursive: true, force: true });
    this.#host = await TestHost.start();
    await connect(this.box, this.#host, this.#internet);
    await this.run('sh', '-c', `printf '%s' "$1" | sysctl -q -p -`, 'boot', settings);
  }

  /** A program of the internet's that runs until the end, once it has said something. */
  async serve(program: string, ...args: string[]): Promise<void> {
    this.#servers.push(await started(this.#internet, program, args));
  }

  /** A peer on the upstream side. */
  internetPeer(): Promise<Peer> {
    return this.#peer(...this.#internet.command(['python3', PEER_SCRIPT]));
  }

  /** All that arrives upstream from now on. */
  capture(): Promise<Capture> {
    return Capture.start((argv) => this.#internet.command(argv));
  }

  /** A peer in a VM, as root. */
  async guestPeer(vm: string): Promise<Peer> {
    const script = await readFile(PEER_SCRIPT, 'utf8');
    const command = [process.execPath, ...NODE_ARGS, '--log-level', 'error', 'exec'];
    return this.#peer(
      ...this.#host.command([...command, '-u', 'root', vm, '--', 'python3', '-c', script]),
    );
  }

  async #peer(program: string, args: string[]): Promise<Peer> {
    const peer = new Peer([program, ...args], { ...process.env, ...this.box.env });
    this.#peers.push(peer);
    await peer.ready();
    return peer;
  }

  /** From now on these names, and no others of those that change, have these addresses. */
  async rename(addresses: Record<string, string | string[]>): Promise<void> {
    const lines = Object.entries(addresses).flatMap(([name, all]) =>
      [all].flat().map((address) => `${address} ${name}\n`),
    );
    await writeFile(join(this.box.dir, 'hosts'), lines.join(''));
    this.#servers[0]?.kill('SIGHUP');
  }

  /** What there is of VMs on the host's network. */
  async traces(): Promise<{ taps: string[]; rules: string[]; services: string[] }> {
    const links = JSON.parse(await this.run('ip', '-json', 'link')) as { ifname: string }[];
    const text = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
    return {
      taps: links.map(({ ifname }) => ifname).filter((name) => name.startsWith('qmpa')),
      rules: (await this.run('nft', 'list', 'ruleset'))
        .split('\n')
        .filter((line) => /_qmpa\d/.test(line)),
      services: text
        .split('\n')
        .filter((line) => line.includes('network/service') && line.includes(this.box.dir)),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const peer of this.#peers) peer.close();
    for (const server of this.#servers) server.kill('SIGKILL');
    await this.#host[Symbol.asyncDispose]();
    await this.#internet[Symbol.asyncDispose]();
    await this.box[Symbol.asyncDispose]();
  }
}

/** `qmp-agent …` in a sandbox; what VMs have by themselves follows from the host that it is run on. */
export function agentCommand(box: Sandbox, ...args: string[]): string[] {
  const own = { NO_COLOR: '1', QMP_AGENT_NETWORK_DEFAULT: 'auto' };
  const env = Object.entries({ ...box.env, ...own }).map(([key, value]) => `${key}=${value}`);
  return ['env', ...env, process.execPath, ...NODE_ARGS, ...args];
}

/** Runs until it is killed; resolves when it has said something. */
export async function started(
  host: TestHost,
  program: string,
  args: string[],
): Promise<ChildProcess> {
  const [file, argv] = host.command([program, ...args]);
  const child = spawn(file, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit').then(() => {
    throw new Error(`${program} ended`);
  });
  await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data'), ended]);
  ended.catch(() => undefined);
  return child;
}

/** A cable between the two, and the address of the name server. */
async function connect(box: Sandbox, host: TestHost, internet: TestHost): Promise<void> {
  await host.run(
    'ip',
    'link',
    'add',
    'eth0',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    String(internet.pid),
  );
  const address = (a: string) => ['address', 'add', a, 'dev', 'eth0'];
  await host.run('ip', ...address(`${HOST}/24`));
  await host.run('ip', ...address(`${HOST6}/64`), 'nodad');
  await host.run('ip', 'link', 'set', 'eth0', 'up');
  await host.run('ip', 'route', 'add', 'default', 'via', UPSTREAM);
  await host.run('ip', '-6', 'route', 'add', 'default', 'via', UPSTREAM6);
  for (const a of [`${UPSTREAM6}/64`, WEB6, OTHER6, LAN6, NEAR6])
    await internet.run('ip', ...address(a), 'nodad');
  for (const a of [`${UPSTREAM}/24`, WEB, OTHER, NAMES, GIT, NPM, PIP, LAN, METADATA, ...RESERVED])
    await internet.run('ip', ...address(a));
  await internet.run('ip', 'link', 'set', 'eth0', 'up');
  const resolvConf = join(box.dir, 'resolv.conf');
  await writeFile(resolvConf, `nameserver ${NAMES}\n`);
  await host.run('mount', '--bind', resolvConf, '/etc/resolv.conf');
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
