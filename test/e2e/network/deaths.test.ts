/**
 * The death of the process that starts or ends a VM with a tap, at each step of its network; and the host's
 * own end, as in a loss of power. (Without VMs, and at any moment: test/integration/network/deaths.test.ts.)
 */
import { readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { STEP_CHANNEL, STEPS } from '../../../src/steps.ts';
import { SCALE } from '../../scale.ts';
import { statePaths } from '../vm/state.ts';
import { agentCommand, LAN, WEB, World } from './world.ts';

const ROOT = join(import.meta.dirname, '../../..');
const TEMPLATE = 'net';
const REFUSED = 'failed 7';
const NO_NAME = 'failed 6';

let world: World;
beforeAll(async () => {
  world = await World.create();
  await world.agent('setup', 'network');
  await world.agent('template', 'create', TEMPLATE, '--network', 'nat-filtered', '-m', '256M');
  await world.agent('clone', TEMPLATE, '--name', 'bystander');
});
afterAll(() => world[Symbol.asyncDispose]());

const places = (['network.attach', 'network.detach'] as const).flatMap((operation) =>
  STEPS[operation].map((step) => [operation, step] as const),
);

/** Does something with VMs in a process that is killed at the last of these steps that it comes to. */
const dieAt = (operation: string, step: string, work: string) =>
  expect(
    world.module(`
      import { subscribe } from 'node:diagnostics_channel';
      import { Vm } from '${ROOT}/src/vm/vm.ts';
      const o = { paths: ${JSON.stringify(statePaths(world.box))}, persistent: true };
      let isArmed = false;
      subscribe('${STEP_CHANNEL}', (m) => {
        if (isArmed && m.operation === '${operation}' && m.step === '${step}') process.kill(process.pid, 'SIGKILL');
      });
      ${work}`),
  ).rejects.toMatchObject({ signal: 'SIGKILL' });

/** As if time had gone by: what is young may be in the making. */
async function age(): Promise<void> {
  const then = new Date(Date.now() - 60_000);
  for (const dir of ['data/vms', 'run'].map((name) => join(world.box.dir, name)))
    for (const name of await readdir(dir)) await utimes(join(dir, name), then, then);
}

describe('the death of the process', () => {
  it.each(places)('at %s %s leaves nothing, and others their network', async (operation, step) => {
    const work =
      operation === 'network.attach'
        ? `isArmed = true; await Vm.fromTemplate('${TEMPLATE}', o);`
        : `const vm = await Vm.fromTemplate('${TEMPLATE}', o); isArmed = true; await vm.remove({ force: true });`;
    const before = await world.traces();
    await dieAt(operation, step, work);
    await age();
    await world.agent('gc');
    await age();
    await world.agent('gc'); // what was ended by the first
    const listed = JSON.parse(await world.agent('list', '--json')) as { name?: string }[];
    expect(listed.map(({ name }) => name)).toEqual(['bystander']);
    expect(await world.traces()).toEqual(before);
  });

  it('did the bystander no harm', async () => {
    expect(await world.fetched('bystander', 'http://web.test/', `http://${LAN}/`)).toEqual([
      `${WEB}:80`,
      REFUSED,
    ]);
  });
});

it('gc in the midst of a start, whichever step it stands at, takes nothing of it', async () => {
  const gc = agentCommand(world.box, '--log-level', 'error', 'gc');
  const [steps] = await world.module(`
    import { execFileSync } from 'node:child_process';
    import { subscribe } from 'node:diagnostics_channel';
    import { Vm } from '${ROOT}/src/vm/vm.ts';
    const [file, ...args] = ${JSON.stringify(gc)};
    const steps = [];
    subscribe('${STEP_CHANNEL}', ({ operation, step }) => {
      if (operation !== 'network.attach' && step !== 'spawned') return;
      steps.push(step);
      execFileSync(file, args, { stdio: 'ignore' });
    });
    const paths = ${JSON.stringify(statePaths(world.box))};
    const vm = await Vm.fromTemplate('${TEMPLATE}', { paths, persistent: true, name: 'beside' });
    await vm.close();
    say(steps);`);
  expect([...(steps as string[])].sort()).toEqual(['rules', 'spawned', 'tap', 'up']);
  expect(await world.fetched('beside', 'http://web.test/', `http://${LAN}/`)).toEqual([
    `${WEB}:80`,
    REFUSED,
  ]);
  await world.agent('remove', '--force', 'beside');
});

it('a start whose tap cannot go up takes the tap away when QEMU, which might open it, is dead', async () => {
  const before = await world.traces();
  const [failure, seen] = (await world.module(`
    import { execFileSync } from 'node:child_process';
    import { readdirSync, readFileSync } from 'node:fs';
    import { subscribe } from 'node:diagnostics_channel';
    import { Vm } from '${ROOT}/src/vm/vm.ts';
    const taps = () => readdirSync('/sys/class/net').filter((name) => /^qmpa/.test(name));
    const others = taps();
    const isOfQemu = (pid, vmId) => {
      try {
        return readFileSync('/proc/' + pid + '/cmdline', 'utf8').includes('qmp-agent-' + vmId);
      } catch {
        return false;
      }
    };
    const seen = [];
    subscribe('${STEP_CHANNEL}', ({ operation, step, vmId }) => {
      if (step === 'spawned') seen.push(step);
      if (operation === 'network.attach' && step === 'up') {
        const tap = taps().find((name) => !others.includes(name));
        const at = 2 * Number(tap.slice(4));
        execFileSync('ip', ['address', 'add', '10.210.0.' + at + '/31', 'dev', tap]);
      }
      if (operation === 'network.detach' && step === 'tap')
        seen.push(step, readdirSync('/proc').filter((pid) => /^[0-9]+$/.test(pid) && isOfQemu(pid, vmId)).length);
    });
    await Vm.fromTemplate('${TEMPLATE}', { paths: ${JSON.stringify(statePaths(world.box))} })
      .catch((error) => say(failure(error)));
    say(seen);`)) as [{ message: string }, unknown];
  expect(seen).toEqual(['spawned', 'tap', 0]);
  expect(failure.message).toMatch(/already assigned|File exists/);
  expect(await world.traces()).toEqual(before);
});

describe('a VM that is suspended', () => {
  beforeAll(async () => {
    await world.agent('clone', TEMPLATE, '--name', 'asleep', '--allow-domain', 'web.test');
    await world.agent('exec', 'asleep', '--', 'sh', '-c', 'echo kept > /dev/shm/line');
    await world.agent('suspend', 'asleep');
  });

  it('has no tap', async () => {
    expect((await world.traces()).taps).toHaveLength(1);
  });

  it('goes on with its network and its policy, though the host has booted since', async () => {
    await world.reboot();
    expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
    await world.agent('resume', 'asleep');
    expect(await world.agent('exec', 'asleep', '--', 'cat', '/dev/shm/line')).toBe('kept\n');
    expect(await world.fetched('asleep', 'http://web.test/', 'http://other.test/')).toEqual([
      `${WEB}:80`,
      NO_NAME,
    ]);
  });

  it('as does one that ran when the power went, once it is started', async () => {
    await world.agent('gc');
    expect((await world.traces()).taps).toHaveLength(1);
    await world.agent('start', 'bystander');
    expect(await world.fetched('bystander', 'http://web.test/', `http://${LAN}/`)).toEqual([
      `${WEB}:80`,
      REFUSED,
    ]);
    expect((await world.info('bystander')).guestAddress).not.toBe(
      (await world.info('asleep')).guestAddress,
    );
    expect(await world.run('ip', 'xfrm', 'policy')).toContain('action block');
  });

  it('leaves nothing when all are removed', async () => {
    await world.agent('remove', '--force', 'bystander', 'asleep');
    await vi.waitFor(
      async () => {
        expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
      },
      { timeout: 30_000 * SCALE, interval: 500 },
    );
  });
});
