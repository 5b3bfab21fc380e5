/** Hosts in namespaces, with rules and without, through which packets are measured. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { TestHost } from './test-host.ts';

/** Processes in these namespaces. */
const PIDS_IN = `
  const pidsIn = (namespaces) =>
    hostFiles.readdirSync('/proc').filter((name) => /^\\d+$/.test(name) && namespaces.includes(linkOf('/proc/' + name + '/ns/net')));`;

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

/** Namespaces that are mounted, as those with a name are: such stay, whoever ends. */
const mounted = async () =>
  (await host.run('cat', '/proc/self/mounts')).split('\n').filter((line) => /^nsfs /.test(line));

it('packets, round trips, transfers both ways and connections get through with rules and without; then all is gone', async () => {
  const figures = await host.module(`
    for (const vms of [0, 3]) {
      const lab = await network.PathLab.open({ vms });
      try {
        for (const figure of ['packet', 'rtt', 'tcp', 'tcp-back', 'connections']) say(await lab.take(figure));
      } finally {
        await lab[Symbol.asyncDispose]();
      }
    }
    say(ownNamespaces());`);
  expect(figures.pop()).toEqual([]);
  expect(figures).toHaveLength(10);
  for (const figure of figures) expect(figure).toBeGreaterThan(0);
  expect(await mounted()).toEqual([]);
});

it('is given back though its server has ended by itself', async () => {
  const [open, ended, left] = await host.module(`
    ${PIDS_IN}
    const lab = await network.PathLab.open({ vms: 0 });
    say([ownNamespaces().length, pidsIn(ownNamespaces()).length]);
    for (const pid of pidsIn(ownNamespaces())) process.kill(Number(pid), 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 500));
    const over = new Promise((resolve) => setTimeout(resolve, 10_000, 'late').unref());
    say(await Promise.race([lab[Symbol.asyncDispose]().then(() => 'given back'), over]));
    say(ownNamespaces());`);
  expect([open, ended, left]).toEqual([[3, 1], 'given back', []]);
});

it('that is given up leaves nothing', async () => {
  const outcomes = await host.module(`
    for (const ms of [50, 200, 350, 500]) {
      const signal = AbortSignal.timeout(ms);
      const lab = await network.PathLab.open({ vms: 0, signal }).catch((e) => say(e === signal.reason));
      await lab?.[Symbol.asyncDispose]();
    }
    say(ownNamespaces());`);
  expect(outcomes.pop()).toEqual([]);
  expect(outcomes.length).toBeGreaterThan(0);
  expect(new Set(outcomes)).toEqual(new Set([true]));
  expect(await mounted()).toEqual([]);
});

it('whose process is killed leaves nothing, not in the midst of a figure either', async () => {
  const [file, args] = host.moduleCommand(`
    ${PIDS_IN}
    const lab = await network.PathLab.open({ vms: 3 });
    const all = ownNamespaces();
    lab.take('tcp').catch(() => undefined);
    while (pidsIn(all).length < 2) await new Promise((resolve) => setTimeout(resolve, 10)); // server and client
    process.stdout.write(JSON.stringify({ all, pid: process.pid }));
    await new Promise((resolve) => setTimeout(resolve, 60_000));`);
  const run = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [text] = (await once(run.stdout, 'data')) as [Buffer];
  const { all, pid } = JSON.parse(text.toString()) as { all: string[]; pid: number };
  expect(all).toHaveLength(3);
  process.kill(pid, 'SIGKILL');
  await once(run, 'close');
  await vi.waitFor(
    async () => {
      const links = await host.run('sh', '-c', 'readlink /proc/[0-9]*/ns/net; true');
      expect(links.split('\n').filter((link) => all.includes(link))).toEqual([]);
    },
    { timeout: 10_000 * SCALE, interval: 100 },
  );
  expect(await mounted()).toEqual([]);
});
