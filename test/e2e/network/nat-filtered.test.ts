/** VMs with a tap: real guests, taps, rules and resolver on a host of the tests' own. */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import type { TrafficRecord } from '../../../src/network/index.ts';
import { SCALE } from '../../scale.ts';
import { LAN, METADATA, OTHER, WEB, World } from './world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

/** The reply's first word, or curl's exit code. */
const curl = (url: string) =>
  `curl -sS -m 10 ${url} 2>/dev/null | grep . || echo "failed \${PIPESTATUS[0]}"`;
const fetched = async (vm: string, ...urls: string[]): Promise<string[]> => {
  const text = await world.agent('exec', vm, '--', 'bash', '-c', urls.map(curl).join('\n'));
  return text
    .trim()
    .split('\n')
    .map((line) => line.replace(/(^\S+) \d.*\..*/, '$1'));
};
const REFUSED = 'failed 7';
const NO_NAME = 'failed 6';
const records = async (vm: string, what = 'log'): Promise<TrafficRecord[]> =>
  (await world.agent('net', what, vm, '--json'))
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as TrafficRecord);
const info = async (vm: string): Promise<NetworkInfo> =>
  JSON.parse(await world.agent('net', 'show', vm, '--json')) as NetworkInfo;

describe('a host', () => {
  it('that is not set up refuses such a VM, and says what to do; then it is set up', async () => {
    await expect(world.agent('create', '--network', 'nat-filtered')).rejects.toThrow(
      'qmp-agent setup network',
    );
    expect(await world.agent('list', '--quiet')).toBe('');
    expect(await world.agent('setup', 'network')).toMatch(/^done: .*ip_forward/);
    expect(await world.agent('setup', 'network')).not.toContain('done:');
    expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
  });
});

describe('a VM', () => {
  beforeAll(async () => {
    await world.agent('create', '--network', 'nat-filtered', '--name', 'one');
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
    await world.agent(
      'exec',
      'one',
      '--',
      'bash',
      '-c',
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
    const growing =
      'for n in web.test other.test; do a=$(wc -l </tmp/$n); sleep 2; b=$(wc -l </tmp/$n); [ $b -gt $a ] && echo flows || echo stands; done';
    expect(await world.agent('exec', 'one', '--', 'bash', '-c', `sleep 1; ${growing}`)).toBe(
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
    await world.agent(
      'exec',
      'one',
      '--',
      'bash',
      '-c',
      `(${lines('sub.web.test')}) </dev/null >/dev/null 2>&1 & sleep 3`,
    );
    await world.agent('net', 'deny', 'one', '--deny-domain', 'sub.web.test');
    const ended =
      'for i in $(seq 50); do [ -s /tmp/sub.web.test.end ] && break; sleep 0.2; done; wc -l </tmp/sub.web.test; tail -1 /tmp/sub.web.test.end';
    expect(await world.agent('exec', 'one', '--', 'bash', '-c', ended)).toMatch(/^[1-9]\d*\n56\n$/);
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
    const refused = await world.agent('exec', 'one', '--', 'bash', '-c', many);
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
        expect(await world.agent('exec', 'two', '--', 'bash', '-c', meet)).toBe('refused\n');
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
    await world.agent('create', '--name', 'server', '-p', '8080:8000');
    expect((await info('server')).published).toEqual(['127.0.0.1:8080 -> 8000']);
    const serve = 'echo hello >/tmp/x; cd /tmp; exec python3 -m http.server >/dev/null 2>&1';
    await world.agent(
      'exec',
      'server',
      '--',
      'bash',
      '-c',
      `(${serve}) </dev/null >/dev/null 2>&1 &`,
    );
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
    await world.agent('remove', '--force', 'server');
    await expect(world.run('curl', '-sS', '-m', '5', 'http://127.0.0.1:8080/x')).rejects.toThrow();
    expect((await world.traces()).taps).toHaveLength(2);
  });

  it('gets nowhere where somebody flushes the ruleset, and has its rules again by gc', async () => {
    await world.run('nft', 'flush', 'ruleset');
    const quick = (url: string) => `curl -s -m 3 ${url} >/dev/null; echo $?`;
    const urls = [`http://${WEB}/`, `http://${LAN}/`, 'http://203.0.113.1/', 'http://10.210.0.2/'];
    const tried = await world.agent('exec', 'two', '--', 'bash', '-c', urls.map(quick).join('\n'));
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
