/** scripts/soak: clones and users of a pool by the hundred. See docs/templates.md. */
import { randomBytes } from 'node:crypto';
import { Command, InvalidArgumentError } from 'commander';
import { resolvePaths } from '../../src/config/paths.ts';
import { createTemplate, TemplateStore } from '../../src/vm/index.ts';
import { soakClones } from './clones.ts';
import { leaks, takeStock } from './leaks.ts';
import { soakPool } from './pool.ts';

const USER_MS = 120_000;
const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`ended by ${name}`)));
}
const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function soak(o: { clones: number; users: number }): Promise<void> {
  const { signal } = stop;
  const paths = resolvePaths();
  const template = `soak-${randomBytes(4).toString('hex')}`;
  await createTemplate(template, { paths, signal });
  try {
    // What is loaded at the first use is no leak.
    await soakClones(template, { paths, count: 1, signal });
    await soakPool(template, { paths, count: 1, timeoutMs: USER_MS, signal });
    const before = await takeStock(paths);
    const clones = await soakClones(template, {
      ...{ paths, count: o.clones, signal },
      onClone: (done) => say(`clone ${done}/${o.clones}`),
    });
    const users = await soakPool(template, {
      ...{ paths, count: o.users, timeoutMs: USER_MS, signal },
      onUser: (done) => say(`user ${done}/${o.users}`),
    });
    const left = leaks(before, await takeStock(paths));
    const faults = [...clones.faults, ...users.faults, ...left];
    for (const fault of faults) process.stdout.write(`fault: ${fault}\n`);
    process.stdout.write(`${o.clones} clones, ${o.users} users, ${faults.length} faults\n`);
    if (faults.length > 0) process.exitCode = 1;
  } finally {
    await new TemplateStore(paths).remove(template);
  }
}

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 100_000) return count;
  throw new InvalidArgumentError('give a whole number from 1 to 100000.');
}

await new Command('scripts/soak')
  .description(
    'Makes and throws away clones, and users of a pool; looks for twins and for what is left.',
  )
  .option('--clones <n>', 'clones, one after the other', parseCount, 300)
  .option('--users <n>', 'users of a pool, one after the other', parseCount, 200)
  .action(soak)
  .parseAsync();
