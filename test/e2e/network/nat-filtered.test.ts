/** VMs with a tap: real guests, taps, rules and resolver on a host of the tests' own. */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { LAN, METADATA, OTHER, WEB, World } from './world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const fetched = (vm: string, ...urls: string[]) => world.fetched(vm, ...urls);
/** Answers each datagram with its source's address and its text. */
const UDP_ECHO = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53))
while True:
  data, source = s.recvfrom(99); s.sendto(source[0].encode() + b" " + data, source)`;
/** Sends words one by one, each when the one before was answered; fails where one is not within 3 s. */
const UDP_CLIENT = `
const [at, port, ...words] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
const next = () => (words.length > 0 ? socket.send(words.shift(), port, at) : process.exit(0));
socket.on('message', (data) => (console.log(String(data)), next()));
setTimeout(() => process.exit(1), 3000);
next();`;
const REFUSED = 'failed 7';
const NO_NAME = 'failed 6';
const records = (vm: string, what?: string) => world.records(vm, what);
const info = (vm: string) => world.info(vm);

describe('a host', () => {
  it('that is not set up refuses such a VM, and says what to do; then it is set up', async () => {
    await expect(world.agent('create', '--network', 'nat-filtered')).rejects.toThrow(
      'qmp-agent setup network',
    );
    expect(await world.agent('list', '--quiet')).toBe('');
    await world.agent('create', '--name', 'plain');
    expect((await info('plain')).mode).toBe('isolated');
    await world.agent('remove', '--force', 'plain');
    expect(await world.agent('setup', 'network')).toMatch(/^done: .*ip_forward/);
    expect(await world.agent('setup', 'network')).not.toContain('done:');
    expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
  });
});

describe('a VM', () => {
  beforeAll(async () => {
    await world.agent('create', '--name', 'one');
  });

  it('has such a network by itself where the host is set up, and says so', async () => {
    expect(await world.agent('inspect', 'one')).toContain('"network": "nat-filtered"');
    const { status, found } = (
      JSON.parse(await world.agent('doctor', '--json')) as Record<string, string>[]
    ).find(({ id }) => id === 'network.default')!;
    expect({ status, found }).toEqual({
      status: 'ok',
      found: expect.stringContaining('VMs are nat-filtered where nothing else is asked for'),
    });
  });

  it('reaches the web by name and by address, and nothing else; all of it is on record', async () => {
    const { gatewayAddress } = await info('one');
    expect(
      await fetched(
        'one',
        ...[
          'http://web.test/',
          `http://${OTHER}/`,
          `http://${WEB}:8080/`,
          `http://${LAN}/`,
          'http://lan.test/',
        ],
        ...[
          `http://${METADATA}/`,
          `http://${gatewayAddress}/`,
          'http://203.0.113.1/',
          'http://nothing.test/',
        ],
      ),
    ).toEqual([
      `${WEB}:80`,
      `${OTHER}:80`,
      REFUSED,
      REFUSED,
      NO_NAME,
      REFUSED,
      REFUSED,
      REFUSED,
      NO_NAME,
    ]);
    await vi.waitFor(
      async () => {
        const seen = await records('one');
        expect(seen).toEqual(
          expect.arrayContaining([
            expect.objectContaining({
              kind: 'connection',
              to: WEB,
              toPort: 80,
              name: 'web.test',
              rule: 'public addresses',
            }),
            expect.objectContaining({
              kind: 'denied',
              to: WEB,
              toPort: 8080,
              cause: 'policy',
              remedy: '--allow-port 8080',
            }),
            expect.objectContaining({
              kind: 'denied',
              to: LAN,
              cause: 'reserved',
              remedy: `--allow-cidr ${LAN}:80`,
            }),
            expect.objectContaining({ kind: 'denied', to: METADATA, cause: 'reserved' }),
            expect.objectContaining({ kind: 'denied', to: gatewayAddress, cause: 'host' }),
            expect.objectContaining({ kind: 'denied', to: '203.0.113.1', cause: 'host' }),
            expect.objectContaining({ kind: 'dns', name: 'lan.test', verdict: 'rebinding' }),
          ]),
        );
      },
      { timeout: 10_000 * SCALE },
    );
    const denied = await records('one', 'denied');
    expect(denied.every(({ kind }) => kind !== 'connection')).toBe(true);
    const { sent, received, denied: count } = await info('one');
    expect(sent?.packets).toBeGreaterThan(5);
    expect(received?.bytes).toBeGreaterThan(100);
    expect(count?.packets).toBeGreaterThanOrEqual(5);
  });

  it('goes out with the host’s address, and no IPv6', async () => {
    expect(await world.agent('exec', 'one', '--', 'curl', '-sS', 'http://web.test/')).toBe(
      `${WEB}:80 203.0.113.1\n`,
    );
    expect(
      await world.agent('exec', 'one', '--', 'cat', '/proc/sys/net/ipv6/conf/default/disable_ipv6'),
    ).toBe('1\n');
  });

  it('is allowed more while it runs, and less: what is still allowed lives on, the rest is cut', async () => {
    const lines = (name: string) =>
      `curl -sSN -m 60 http://${name}/slow >/tmp/${name} 2>/tmp/${name}.end; echo $? >>/tmp/${name}.end`;
    await world.bash(
      'one',
      `for n in web.test other.test; do (${lines('$n')}) </dev/null >/dev/null 2>&1 & done; sleep 3`,
    );
    await world.agent(
      'net',
      'set',
      'one',
      '--allow-domain',
      'web.test',
      '--allow-cidr',
      `${WEB}:80`,
      '--allow-cidr',
      `${LAN}:80`,
    );
    const growing = (names: string) =>
      `for n in ${names}; do a=$(wc -l </tmp/$n); sleep 2; b=$(wc -l </tmp/$n); [ $b -gt $a ] && echo flows || echo stands; done`;
    expect(await world.bash('one', `sleep 1; ${growing('web.test other.test')}`)).toBe(
      'flows\nstands\n',
    );
    expect(
      await fetched(
        'one',
        'http://web.test/',
        `http://${LAN}/`,
        'http://other.test/',
        `http://${OTHER}/`,
      ),
    ).toEqual([`${WEB}:80`, `${LAN}:80`, NO_NAME, REFUSED]);
    await world.agent('net', 'allow', 'one', '--allow-domain', '*.web.test');
    expect(
      await fetched('one', `http://${OTHER}/`, 'http://sub.web.test/', `http://${OTHER}/`),
    ).toEqual([REFUSED, `${OTHER}:80`, `${OTHER}:80`]);
    await world.bash('one', `(${lines('sub.web.test')}) </dev/null >/dev/null 2>&1 & sleep 3`);
    await world.agent('net', 'deny', 'one', '--deny-domain', 'sub.web.test');
    expect(await world.bash('one', `sleep 1; ${growing('sub.web.test')}`)).toBe('stands\n');
    expect(await fetched('one', `http://${OTHER}/`, 'http://sub.web.test/')).toEqual([
      REFUSED,
      NO_NAME,
    ]);
    await world.agent(
      'net',
      'set',
      'one',
      '--allow-domain',
      'web.test',
      '--allow-domain',
      '*.web.test',
    );
    await world.agent('net', 'deny', 'one', '--deny-cidr', OTHER);
    expect(await fetched('one', 'http://sub.web.test/', 'http://web.test/')).toEqual([
      REFUSED,
      `${WEB}:80`,
    ]);
    await expect(world.agent('net', 'allow', 'one', '--allow-cidr', 'nonsense')).rejects.toThrow(
      'network.allowCidrs',
    );
    await expect(world.agent('net', 'allow', 'one')).rejects.toThrow('nothing to allow');
    await world.agent('net', 'set', 'one');
  });

  it('has bounds, which change while it runs', async () => {
    const seconds = async () =>
      Number(
        await world.agent(
          ...['exec', 'one', '--', 'curl', '-sS', '-m', '60', '-o', '/dev/null', '-w'],
          ...['%{time_total}', `http://${WEB}/big`],
        ),
      );
    const free = await seconds();
    await world.agent(
      'net',
      'limit',
      'one',
      '--bandwidth-down',
      '1mbit',
      '--max-connections',
      'none',
    );
    // 1 MiB, less the burst of 256 KiB, at 125 000 bytes a second: 6.3 s.
    const bounded = await seconds();
    expect(bounded).toBeGreaterThan(5);
    expect(bounded).toBeLessThan(9 + free);
    expect((await info('one')).limits).toEqual({
      ...{ uploadBitsPerSecond: 'none', downloadBitsPerSecond: 1e6 },
      ...{ newConnectionsPerSecond: 200, connections: 'none' },
    });
    await world.agent(
      'net',
      'limit',
      'one',
      '--bandwidth-down',
      'none',
      '--new-connections',
      '1/s',
    );
    expect(await seconds()).toBeLessThan(5);
    const many = `for i in $(seq 12); do (exec 3<>/dev/tcp/${WEB}/80) 2>&1; done | grep -c refused`;
    const refused = await world.bash('one', many);
    expect(Number(refused)).toBeGreaterThan(0);
    await expect(world.agent('net', 'limit', 'one', '--bandwidth-up', '5mbps')).rejects.toThrow(
      'give bits per second',
    );
    await expect(world.agent('net', 'limit', 'one')).rejects.toThrow('nothing to limit');
    await world.agent('net', 'set', 'one');
  });

  it('has the network and its policy again when it is put back, and started again', async () => {
    await world.agent('snapshot', 'create', 'one', 's');
    await world.agent('net', 'set', 'one', '--allow-domain', 'web.test');
    await world.agent('snapshot', 'restore', 'one', 's');
    expect(await fetched('one', 'http://web.test/', 'http://other.test/')).toEqual([
      `${WEB}:80`,
      NO_NAME,
    ]);
    await world.agent('stop', 'one');
    expect((await world.traces()).taps).toEqual([]);
    await world.agent('start', 'one');
    expect(await fetched('one', 'http://web.test/', 'http://other.test/')).toEqual([
      `${WEB}:80`,
      NO_NAME,
    ]);
  });

  it('does not meet another, and its names are answered though the service was killed', async () => {
    await world.agent('fork', 'one', '--name', 'two');
    const [one, two] = [await info('one'), await info('two')];
    expect(two.guestAddress).not.toBe(one.guestAddress);
    const { services } = await world.traces();
    expect(services.length).toBeGreaterThan(0);
    await world.run(
      'pkill',
      '-KILL',
      '-f',
      `^${process.execPath} .*service/main.*${world.box.dir}`,
    );
    await vi.waitFor(
      async () => {
        expect(await fetched('two', 'http://web.test/')).toEqual([`${WEB}:80`]);
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    const meet = `timeout 5 bash -c '</dev/tcp/${one.guestAddress}/22' 2>&1 | grep -o refused | head -1`;
    await vi.waitFor(
      async () => {
        expect(await world.bash('two', meet)).toBe('refused\n');
        expect(await records('two', 'denied')).toEqual(
          expect.arrayContaining([expect.objectContaining({ to: one.guestAddress, toPort: 22 })]),
        );
      },
      { timeout: 10_000 * SCALE },
    );
  });

  it('has ports of the host lead to it, on the host’s loopback', async () => {
    await expect(
      world.agent('create', '--name', 'taken', '-p', '8080:8080', '-p', '80:80'),
    ).rejects.toThrow('127.0.0.1:80 cannot be published: another program has it');
    const { taps } = await world.traces();
    const ports = ['-p', '8080:8000', '-p', '5353:53/udp', '-p', '5354:54/udp'];
    await world.agent('create', '--name', 'server', ...ports);
    expect((await info('server')).published).toEqual([
      '127.0.0.1:8080 -> 8000',
      '127.0.0.1:5353 -> 53/udp',
      '127.0.0.1:5354 -> 54/udp',
    ]);
    const serve = 'echo hello >/tmp/x; cd /tmp; exec python3 -m http.server >/dev/null 2>&1';
    await world.bash('server', `(${serve}) </dev/null >/dev/null 2>&1 &`);
    await vi.waitFor(
      async () => {
        expect(await world.run('curl', '-sS', '-m', '20', 'http://127.0.0.1:8080/x')).toBe(
          'hello\n',
        );
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    await expect(
      world.run('curl', '-sS', '-m', '5', 'http://203.0.113.1:8080/x'),
    ).rejects.toThrow();
    const { gatewayAddress } = await info('server');
    const echo = `(exec python3 -c '${UDP_ECHO}' >/dev/null 2>&1) </dev/null &`;
    await world.agent('exec', '--user', 'root', 'server', '--', 'bash', '-c', echo);
    const say = (at: string, ...words: string[]) =>
      world.run(process.execPath, '-e', UDP_CLIENT, at, '5353', ...words);
    await vi.waitFor(
      async () => {
        const answer = await say('127.0.0.1', 'one', 'two');
        expect(answer).toBe(`${gatewayAddress} one\n${gatewayAddress} two\n`);
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    await expect(say('203.0.113.1', 'three')).rejects.toThrow();
    await world.agent('remove', '--force', 'server');
    await expect(world.run('curl', '-sS', '-m', '5', 'http://127.0.0.1:8080/x')).rejects.toThrow();
    await expect(say('127.0.0.1', 'four')).rejects.toThrow();
    expect((await world.traces()).taps).toEqual(taps);
  });

  it('gets nowhere where somebody flushes the ruleset, and has its rules again by gc', async () => {
    await world.run('nft', 'flush', 'ruleset');
    const quick = (url: string) => `curl -s -m 3 ${url} >/dev/null; echo $?`;
    const urls = [`http://${WEB}/`, `http://${LAN}/`, 'http://203.0.113.1/', 'http://10.210.0.2/'];
    const tried = await world.bash('two', urls.map(quick).join('\n'));
    expect(tried).not.toContain('0\n');
    await world.agent('gc');
    expect(await fetched('two', 'http://web.test/', `http://${LAN}/`)).toEqual([
      `${WEB}:80`,
      REFUSED,
    ]);
  });

  it('whose owner is killed leaves nothing, once gc has run; nor do those that are removed', async () => {
    const run = world.start(
      'run',
      '--network',
      'nat-filtered',
      '--',
      'sh',
      '-c',
      'echo up; sleep 600',
    );
    await once(run.stdout!, 'data');
    expect((await world.traces()).taps).toHaveLength(3);
    run.kill('SIGKILL');
    await once(run, 'exit');
    await world.run('pkill', '-KILL', '-f', 'echo up; sleep 600').catch(() => undefined);
    await vi.waitFor(
      async () => {
        await world.agent('gc');
        expect((await world.traces()).taps).toHaveLength(2);
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    await world.agent('remove', '--force', 'one', 'two');
    await vi.waitFor(
      async () => {
        expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
    expect(await world.agent('setup', 'network', '--undo')).toMatch(/^undone: /);
  });
});
