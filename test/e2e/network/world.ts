/** A host of the tests' own with an internet behind it: a name server, web servers, a private network. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NODE_ARGS, type Sandbox } from '../../integration/cli/command.ts';
import { TestHost } from '../../integration/network/test-host.ts';
import { vmSandbox } from '../cli/host.ts';

export const WEB = '203.0.113.10';
export const OTHER = '203.0.113.11';
const NAMES = '203.0.113.53';
export const LAN = '10.1.2.3';
export const METADATA = '169.254.169.254';
const HOST = '203.0.113.1';

/** Answers each request with the address it came to and the one it came from. */
const WEB_SERVER = `
const { createServer } = require('node:http');
const [where] = process.argv.slice(1);
for (const at of where.split(',')) {
  const [address, port] = at.split(':');
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
  readonly #host: TestHost;
  readonly #internet: TestHost;
  readonly #servers: ChildProcess[];

  private constructor(box: Sandbox, hosts: [TestHost, TestHost], servers: ChildProcess[]) {
    this.box = box;
    [this.#host, this.#internet] = hosts;
    this.#servers = servers;
  }

  static async create(): Promise<World> {
    const box = await vmSandbox();
    const [host, internet] = [await TestHost.start(), await TestHost.start()];
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
    await host.run('ip', 'link', 'set', 'eth0', 'up');
    await host.run('ip', 'route', 'add', 'default', 'via', '203.0.113.254');
    for (const a of ['203.0.113.254/24', WEB, OTHER, NAMES, LAN, METADATA])
      await internet.run('ip', ...address(a));
    await internet.run('ip', 'link', 'set', 'eth0', 'up');
    const resolvConf = join(box.dir, 'resolv.conf');
    await writeFile(resolvConf, `nameserver ${NAMES}\n`);
    await host.run('mount', '--bind', resolvConf, '/etc/resolv.conf');
    const records = [
      `/web.test/${WEB}`,
      `/other.test/${OTHER}`,
      `/lan.test/${LAN}`,
      `/sub.web.test/${OTHER}`,
    ];
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
          `--listen-address=${NAMES}`,
          '--local=/test/',
          ...records.map((a) => `--address=${a}`),
        ],
      ]),
      await started(internet, process.execPath, [
        '-e',
        WEB_SERVER,
        [`${WEB}:80`, `${WEB}:8080`, `${OTHER}:80`, `${LAN}:80`, `${METADATA}:80`].join(','),
      ]),
      await started(host, process.execPath, ['-e', WEB_SERVER, `${HOST}:80,127.0.0.1:80`]),
    ];
    return new World(box, [host, internet], servers);
  }

  /** A command of the host. */
  run(...argv: string[]): Promise<string> {
    return this.#host.run(...argv);
  }

  /** `qmp-agent …` on the host. @returns stdout */
  async agent(...args: string[]): Promise<string> {
    const env = Object.entries({ ...this.box.env, NO_COLOR: '1' }).map(([k, v]) => `${k}=${v}`);
    return this.run('env', ...env, process.execPath, ...NODE_ARGS, '--log-level', 'error', ...args);
  }

  /** Starts `qmp-agent …` on the host, output to us. */
  start(...args: string[]): ChildProcess {
    const [file, argv] = this.#host.command([
      process.execPath,
      ...NODE_ARGS,
      '--log-level',
      'error',
      ...args,
    ]);
    return spawn(file, argv, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...this.box.env },
    });
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
    for (const server of this.#servers) server.kill('SIGKILL');
    await this.#host[Symbol.asyncDispose]();
    await this.#internet[Symbol.asyncDispose]();
    await this.box[Symbol.asyncDispose]();
  }
}

/** Runs until it is killed; resolves when it has said something. */
async function started(host: TestHost, program: string, args: string[]): Promise<ChildProcess> {
  const [file, argv] = host.command([program, ...args]);
  const child = spawn(file, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit').then(() => {
    throw new Error(`${program} ended`);
  });
  await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data'), ended]);
  ended.catch(() => undefined);
  return child;
}
