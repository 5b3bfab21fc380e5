/**
 * The death of the process at each step of a VM's network, and at any moment between them: after `gc` there is
 * on the host what was there before, and all that belongs to others.
 */
import { mkdir, readdir, readFile, readlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { STEP_CHANNEL, STEPS, type Operation } from '../../../src/steps.ts';
import { SCALE } from '../../scale.ts';
import { NODE_ARGS, sandbox, type Sandbox } from '../cli/command.ts';
import { TestHost } from './test-host.ts';

const VM = 'aaaaaaaaaa01';
/** Files that a service works with; they stay. */
const LASTING = ['service.lock', 'service.log', 'supervisor.lock'];
/** A service without VMs ends by itself. */
const SERVICE_END_MS = 15_000 * SCALE;
/** What others have on this host. A VM of another state directory comes to it. */
const OTHERS = `
ip tuntap add dev other0 mode tap
ip link set other0 up
ip tuntap add dev qmpa2 mode tap
ip link set qmpa2 up
ip tuntap add dev qmpa9 mode tap
ip tuntap add dev qmpb9 mode tap
ip link add qmpa3 type veth peer name other1
ip link set dev qmpa3 alias 'somebody else'
ip xfrm policy add src 192.168.77.0/24 dst 0.0.0.0/0 dir fwd action block
nft add table inet other
nft add set inet other taps '{ type ifname; elements = { "qmpa1", "qmpa4" }; }'
nft add chain inet other forward '{ type filter hook forward priority 0; policy accept; }'
nft add rule inet other forward iifname qmpa4 counter
`;

let host: TestHost;
let box: Sandbox;
let before: unknown;
beforeAll(async () => {
  [host, box] = [await TestHost.start(), await sandbox()];
  await mkdir(join(box.dir, 'other/run'), { recursive: true });
  await host.module('await network.setUpNetwork();');
  await host.run('sh', '-ec', OTHERS);
  await host.module(`${joining('bbbbbbbbbb01', join(box.dir, 'other/run'))}`);
  before = await seen();
  expect(JSON.stringify(before)).toContain('bbbbbbbbbb01');
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  await box[Symbol.asyncDispose]();
});

const runtimeDir = () => join(box.dir, 'run');

/** Text that gives a VM its network. */
function joining(vmId: string, dir = runtimeDir()): string {
  return `const o = { runtimeDir: '${dir}', vmId: '${vmId}', egress: {}, publish: [],
    mac: '02:00:00:00:00:${vmId.slice(-2)}', logPath: '${box.dir}/${vmId}.jsonl' };
    const joined = await network.joinNetwork(o);
    await joined.whole;`;
}

/** Text that kills its process when a step begins. */
const dieAt = (operation: Operation, step: string) => `
  import { subscribe } from 'node:diagnostics_channel';
  subscribe('${STEP_CHANNEL}', (m) => {
    if (m.operation === '${operation}' && m.step === '${step}') process.kill(process.pid, 'SIGKILL');
  });`;

const killed = (body: string) =>
  expect(host.module(body)).rejects.toMatchObject({ signal: 'SIGKILL' });

const agent = (...args: string[]) => {
  const env = Object.entries({ ...box.env, NO_COLOR: '1' }).map(([k, v]) => `${k}=${v}`);
  return host.run('env', ...env, process.execPath, ...NODE_ARGS, '--log-level', 'error', ...args);
};

/** Processes in the host's network namespace that came to it later than its keeper. */
async function processes(): Promise<string[]> {
  const namespaceOf = (pid: string | number) => readlink(`/proc/${pid}/ns/net`).catch(() => '');
  const own = await namespaceOf(host.pid);
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const there = await Promise.all(
    pids.map(async (pid) => {
      if (Number(pid) === host.pid || (await namespaceOf(pid)) !== own) return [];
      return [
        (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' '),
      ];
    }),
  );
  return there.flat();
}

/** All that there is on the host's network. */
async function seen(): Promise<Record<string, unknown>> {
  return {
    links: await host.run('ip', '-details', 'address'),
    neighbours: await host.run('ip', 'neighbour'),
    rules: await host.run('nft', '-s', 'list', 'ruleset'),
    policies: await host.run('ip', 'xfrm', 'policy'),
    files: await filesIn(runtimeDir()),
    others: await filesIn(join(box.dir, 'other/run')),
    making: (await host.run('ls', '/run/qmp-agent-network')).includes('making-'),
  };
}

async function filesIn(dir: string): Promise<string[]> {
  const names = await readdir(join(dir, 'network')).catch(() => []);
  return names.filter((name) => !LASTING.includes(name));
}

async function expectAsBefore(): Promise<void> {
  await agent('gc');
  expect(await seen()).toEqual(before);
}

const places = (['network.attach', 'network.detach', 'network.change'] as const).flatMap(
  (operation) => STEPS[operation].map((step) => [operation, step] as const),
);
const CHANGE = `await network.changeEgress('RUN', '${VM}', () => ({ allowDomains: ['example.org'] }));`;
/** What passes the steps of each. */
const WORK: Record<(typeof places)[number][0], () => string> = {
  'network.attach': () => joining(VM),
  'network.detach': () => `${joining(VM)} await network.leaveNetwork('${runtimeDir()}', '${VM}');`,
  'network.change': () => joining(VM) + CHANGE.replace('RUN', runtimeDir()),
};

describe('a death', () => {
  it.each(places)('at %s %s leaves nothing, once gc has run', async (operation, step) => {
    await killed(dieAt(operation, step) + WORK[operation]());
    await expectAsBefore();
  });

  // Of a change: after it, which is a life like any other.
  it.each(places.slice(0, -2))(
    'at %s %s is not in the way of the next life',
    async (operation, step) => {
      await killed(dieAt(operation, step) + WORK[operation]());
      const [tap] = await host.module(`${joining(VM)} say(joined.network.tap);`);
      expect(tap).toBe('qmpa4'); // as if there had been no other
      expect(await host.run('ip', '-json', 'link')).not.toContain('qmpa5');
      await host.module(`await network.leaveNetwork('${runtimeDir()}', '${VM}');`);
      expect(await seen()).toEqual(before);
    },
  );

  it.each(STEPS['network.change'])(
    'at network.change %s leaves a policy that is whole',
    async (step) => {
      await killed(dieAt('network.change', step) + WORK['network.change']());
      const policy = () => host.run('nft', '-s', 'list', 'chain', 'inet', 'qmp_agent', 'out_qmpa4');
      const after = await policy();
      expect(after).toMatch(step === 'record' ? /@to_qmpa4_\d+/ : /proto-dst 443 /);
      const [changed] = (await host.module(
        `say(await network.changeEgress('${runtimeDir()}', '${VM}', () => ({ allowDomains: ['example.net'] })));`,
      )) as [{ isChanging?: boolean; policy: { names: { ruleId: number }[] } }];
      expect(changed.isChanging).toBeUndefined();
      const sets = new Set((await policy()).match(/to_qmpa4_\d+/g));
      expect([...sets]).toEqual(changed.policy.names.map(({ ruleId }) => `to_qmpa4_${ruleId}`));
      await expectAsBefore();
    },
  );

  it('at any moment leaves nothing, once gc has run', { timeout: 120_000 * SCALE }, async () => {
    // From the first step on: within programs that it runs, too, which go on without it.
    for (let ms = 1; ms <= 60; ms += 6) {
      await killed(`
        import { subscribe } from 'node:diagnostics_channel';
        import { spawn } from 'node:child_process';
        let isFirst = true;
        subscribe('${STEP_CHANNEL}', () => {
          if (isFirst) setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${ms});
          isFirst = false;
        });
        ${joining(VM)}
        for (;;) {
          ${CHANGE.replace('RUN', runtimeDir())}
          await network.leaveNetwork('${runtimeDir()}', '${VM}');
          await (await network.joinNetwork(o)).whole;
        }`);
      await age();
      await expectAsBefore();
    }
  });

  it('in the writing of an entry leaves no file', async () => {
    await mkdir(join(runtimeDir(), 'network'), { recursive: true });
    const half = join(runtimeDir(), 'network', `${VM}.json.0123abcd.tmp`);
    await writeFile(half, '{');
    await agent('gc');
    expect(await filesIn(runtimeDir())).toHaveLength(1); // it may be in the writing
    await age();
    await expectAsBefore();
  });

  it('with the service running leaves no process: resolver, tcpdump, shell', async () => {
    await killed(`${joining(VM)}
      await network.awaitNames({ runtimeDir: '${runtimeDir()}', vmId: '${VM}' });
      process.kill(process.pid, 'SIGKILL');`);
    const running = (await processes()).join('\n');
    expect(running).toContain('service/main');
    await agent('gc');
    await vi.waitFor(async () => expect(await processes()).toEqual([]), {
      timeout: SERVICE_END_MS,
      interval: 200,
    });
    expect(await seen()).toEqual(before);
  });
});

it(
  'processes that come, go and die at once do not meet',
  { timeout: 120_000 * SCALE },
  async () => {
    const cycle = (n: number) => `
    const o = { runtimeDir: '${runtimeDir()}', vmId: 'cccccccccc0${n}', egress: {}, publish: [],
      mac: '02:00:00:00:00:0${n}', logPath: '${box.dir}/${n}.jsonl' };
    for (let i = 0; i < 6; i++) {
      const { network: { tap, guestAddress, generation }, whole } = await network.joinNetwork(o);
      await whole;
      const from = Date.now();
      await new Promise((resolve) => setTimeout(resolve, 30));
      say({ tap, guestAddress, generation, from, to: Date.now() });
      await network.leaveNetwork(o.runtimeDir, o.vmId);
    }`;
    const dying = (async () => {
      for (const step of STEPS['network.attach'])
        await killed(dieAt('network.attach', step) + joining(VM));
    })();
    const gc = (async () => {
      for (let i = 0; i < 3; i++) {
        await agent('gc');
        await delay(100);
      }
    })();
    // gc takes away what has no VM: of these it must not know.
    const lives = (
      await Promise.all([1, 2, 3, 4].map((n) => host.module(cycle(n).replaceAll('/run', '/own'))))
    ).flat() as {
      tap: string;
      guestAddress: string;
      generation: number;
      from: number;
      to: number;
    }[];
    await Promise.all([dying, gc]);
    expect(lives).toHaveLength(24);
    expect(new Set(lives.map(({ tap, generation }) => `${tap} ${generation}`)).size).toBe(24);
    for (const one of lives) {
      const beside = lives.filter(
        (other) => other !== one && other.from < one.to && one.from < other.to,
      );
      expect(beside.map(({ guestAddress }) => guestAddress)).not.toContain(one.guestAddress);
      expect(['qmpa1', 'qmpa2', 'qmpa3']).not.toContain(one.tap);
    }
    await expectAsBefore();
  },
);

/** As if time had gone by. */
async function age(): Promise<void> {
  const then = new Date(Date.now() - 60_000);
  const dir = join(runtimeDir(), 'network');
  for (const name of await readdir(dir)) await utimes(join(dir, name), then, then);
}
