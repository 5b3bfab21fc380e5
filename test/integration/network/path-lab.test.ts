/** Hosts in namespaces, with rules and without, through which packets are measured. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestHost } from './test-host.ts';

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

it('packets, round trips, transfers both ways and connections get through with rules and without; then all is gone', async () => {
  const figures = (await host.module(`
    for (const vms of [0, 3]) {
      const lab = await network.PathLab.open({ vms });
      try {
        for (const figure of ['packet', 'rtt', 'tcp', 'tcp-back', 'connections']) say(await lab.take(figure));
      } finally {
        await lab[Symbol.asyncDispose]();
      }
    }`)) as number[];
  expect(figures).toHaveLength(10);
  for (const figure of figures) expect(figure).toBeGreaterThan(0);
  expect(await host.run('ip', 'netns')).not.toContain('qmp-agent-bench');
});

it('is given back though its server has ended by itself', async () => {
  const [open, ended, left] = await host.module(`
    import { execFileSync } from 'node:child_process';
    const ip = (...args) => execFileSync('ip', ['netns', ...args], { encoding: 'utf8' }).trim();
    const names = () => ip('list').split('\\n').map((line) => line.split(' ')[0]);
    const others = names(); // the list of namespaces is not the test's own
    const lab = await network.PathLab.open({ vms: 0 });
    const made = names().filter((name) => name.startsWith('qmp-agent-bench-') && !others.includes(name));
    say(made.length);
    for (const name of made)
      for (const pid of ip('pids', name).split('\\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 500));
    const over = new Promise((resolve) => setTimeout(resolve, 10_000, 'late').unref());
    say(await Promise.race([lab[Symbol.asyncDispose]().then(() => 'given back'), over]));
    say(names().filter((name) => made.includes(name)));`);
  expect([open, ended, left]).toEqual([3, 'given back', []]);
});

it('that is given up leaves nothing', async () => {
  const outcomes = await host.module(`
    for (const ms of [50, 200, 350, 500]) {
      const signal = AbortSignal.timeout(ms);
      const lab = await network.PathLab.open({ vms: 0, signal }).catch((e) => say(e === signal.reason));
      await lab?.[Symbol.asyncDispose]();
    }`);
  expect(outcomes.length).toBeGreaterThan(0);
  expect(new Set(outcomes)).toEqual(new Set([true]));
  expect(await host.run('ip', 'netns')).not.toContain('qmp-agent-bench');
});
