/** What `bench net` measures of a real guest over its tap: each figure comes, and nothing of it is left, also where it is given up. */
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import type { BenchSeries } from '../../../src/bench/report.ts';
import { SCALE } from '../../scale.ts';
import { processesOf } from '../cli/host.ts';
import { statePaths } from '../vm/state.ts';
import { World } from './world.ts';

const SRC = join(import.meta.dirname, '../../../src');
const DEADLINE_MS = 100_000 * SCALE;
/** Less than any wait of a sample. */
const AT_ONCE_MS = 10_000 * SCALE;
const TEMPLATE = 'measured';

/** No guest and no host of today gets beyond these; what is outside was not measured. */
const PLAUSIBLE = {
  'net.guest.rtt': { unit: 'ms', from: 0.01, to: 1000 },
  'net.guest.tcp-in': { unit: 'MiB/s', from: 0.1, to: 50_000 },
  'net.guest.tcp-out': { unit: 'MiB/s', from: 0.1, to: 50_000 },
  'net.guest.connections': { unit: '/s', from: 1, to: 100_000 },
};

let world: World;
beforeAll(async () => {
  world = await World.create();
  await world.agent('setup', 'network');
  await world.agent('template', 'create', TEMPLATE, '--network', 'nat-filtered', '-m', '256M');
});
afterEach(async () => {
  const nothing = { taps: [], rules: [], services: [], qemus: [], vms: '' };
  await vi.waitFor(async () => expect(await traces()).toEqual(nothing), {
    timeout: 20_000 * SCALE, // the service, too, ends when nobody needs it
    interval: 200,
  });
});
afterAll(() => world[Symbol.asyncDispose]());

/** What there is of VMs. */
async function traces(): Promise<unknown> {
  return {
    ...(await world.traces()),
    qemus: (await processesOf(world.box)).filter((line) => line.includes('qemu-system')),
    vms: await world.agent('list', '--all', '--quiet'),
  };
}

/** Runs a module with `measure(options)`, and `over` that gives it up. @returns what it says */
const measuring = (body: string) =>
  world.module(`
    import { readdirSync, readFileSync } from 'node:fs';
    import { setTimeout as delay } from 'node:timers/promises';
    const { measureGuest } = await import('${SRC}/bench/guest-path.ts');
    const over = new AbortController();
    const reason = new Error('given up');
    const late = setTimeout(() => over.abort(new Error('too late')), ${DEADLINE_MS});
    const vm = { paths: ${JSON.stringify(statePaths(world.box))} };
    const measure = (more) => measureGuest('${TEMPLATE}', { runs: 2, signal: over.signal, vm, ...more });
    const taps = () => readdirSync('/sys/class/net').filter((name) => name.startsWith('qmpa'));
    ${body}
    clearTimeout(late);
    if (ownNamespaces().length > 0) throw new Error('a namespace is left');`);

it('bytes and connections go both ways, with the filter and without', async () => {
  const [series, taps] = (await measuring(`
    const seen = new Set();
    say(await measure({ onSample: () => taps().forEach((tap) => seen.add(tap)) }));
    say([...seen]);`)) as [BenchSeries[], string[]];
  expect(taps, 'taps of the host while there are none of rules').toEqual([]);
  const names = Object.keys(PLAUSIBLE).flatMap((name) => [`${name}-filtered`, `${name}-none`]);
  expect(series.map(({ name }) => name)).toEqual(names);
  for (const { name, unit, samples } of series) {
    const bounds = PLAUSIBLE[name.replace(/-(filtered|none)$/, '') as keyof typeof PLAUSIBLE];
    expect(unit).toBe(bounds.unit);
    expect(samples).toHaveLength(2);
    for (const sample of samples) {
      expect(sample, name).toBeGreaterThan(bounds.from);
      expect(sample, name).toBeLessThan(bounds.to);
    }
  }
});

/** Starts a measurement, goes on to some moment, does something, and says how the measurement ends. */
const broken = (until: string, act: string) =>
  measuring(`
    let isFirst;
    const first = new Promise((resolve) => (isFirst = resolve));
    const ended = measure({ onSample: isFirst }).then(() => 'measured', (e) => (e === reason ? 'given up' : e.code ?? String(e.stack)));
    ${until}
    const began = performance.now();
    ${act}
    say(await ended);
    say(performance.now() - began);`);

it.each([
  [
    'as its tap leaves the host',
    'while (taps().length === 0) await delay(1); while (taps().length > 0) await delay(1);',
  ],
  ['in the midst of a sample', 'await first; await delay(100);'],
])('that is given up %s leaves nothing', async (_when, until) => {
  const [end, ms] = await broken(until, 'over.abort(reason);');
  expect(end).toBe('given up');
  expect(ms).toBeLessThan(AT_ONCE_MS);
});

it('whose VM dies ends at once, and says so', async () => {
  const [end, ms] = await broken(
    'await first; await delay(100);',
    `for (const pid of readdirSync('/proc').filter((name) => /^\\d+$/.test(name))) {
      let text = '';
      try { text = readFileSync('/proc/' + pid + '/cmdline', 'utf8'); } catch {}
      const [program, ...args] = text.split('\\0');
      if (program.includes('qemu-system') && args.join(' ').includes('${world.box.dir}')) process.kill(Number(pid), 'SIGKILL');
    }`,
  );
  expect(end).toBe('ERR_VM_DIED');
  expect(ms).toBeLessThan(AT_ONCE_MS);
});
