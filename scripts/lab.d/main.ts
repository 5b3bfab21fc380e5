/**
 * scripts/lab: a Debian 13 machine with KVM, vhost-vsock and cgroups v2, emulated, thrown away
 * after each run. See docs/lab.md.
 */
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { cacheDir } from './cache.ts';
import { cleanCache, dataDisks } from './data-disks.ts';
import type { LabMachine } from './machine.ts';
import { rootDisk } from './root-disk.ts';
import { runLab, shellInLab } from './session.ts';

interface RunOptions {
  timeout: number;
  memory: number;
  vcpus: number;
  env: string[];
  results?: string;
}

/** Exit codes of our own, apart from what a job is likely to use. */
const EXIT_LAB_FAILED = 70;
/** What every job is told; --env overrides it. Everything is some 30 times slower than on the host. */
const JOB_ENV = ['QMP_AGENT_LAB=yes', 'QMP_AGENT_TEST_BUILT=yes', 'QMP_AGENT_TEST_TIMEOUT_SCALE=6'];
/** A lab that does not come up is tried once more: the cause is nearly always a busy machine. */
const BOOT_TRIES = 2;

const ROOT = resolve(import.meta.dirname, '../..');
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => stop.abort(new Error(`lab: ended by ${signal}`)));
}
const say = (text: string): void => void process.stderr.write(`lab: ${text}\n`);

async function withMachine<T>(
  o: {
    memory: number;
    vcpus: number;
    interactive: boolean;
    settings: Record<string, string>;
    command: string;
  },
  use: (machine: LabMachine) => Promise<T>,
): Promise<T> {
  const cache = cacheDir();
  const root = await buildRoot(false);
  // Sockets live here too, and their paths are limited to 107 bytes.
  const work = await mkdtemp(join(tmpdir(), 'qmp-agent-lab-'));
  try {
    const disks = await dataDisks(ROOT, cache, work);
    const jobDir = join(work, 'job');
    await mkdir(join(jobDir, 'results'), { recursive: true });
    for (const name of ['start', 'hold-kvm'])
      await cp(join(import.meta.dirname, 'guest', name), join(jobDir, name));
    await writeFile(join(jobDir, 'command'), o.command);
    const settings = {
      // The root disk is vda, so the others begin at b.
      disks: disks.map((disk, n) => `${String.fromCharCode(98 + n)}:${disk.mountPoint}`).join(' '),
      interactive: o.interactive ? 'yes' : 'no',
      ...o.settings,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name}=${quote(value)}\n`);
    await writeFile(join(jobDir, 'settings'), lines.join(''));
    return await use({
      root,
      disks,
      jobDir,
      socketDir: join(work, 's'),
      consolePath: join(work, 'console.log'),
      memoryMib: o.memory,
      vcpus: o.vcpus,
      interactive: o.interactive,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function buildRoot(force: boolean) {
  const started = Date.now();
  const root = await rootDisk(cacheDir(), {
    force,
    signal: stop.signal,
    onStep: (step) => say(`root disk: ${step}`),
  });
  if (!root.cached) say(`root disk made in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  return root;
}

async function run(argv: string[], o: RunOptions): Promise<number> {
  const exports = [...JOB_ENV, ...o.env].map((pair) => {
    const [name = '', ...value] = pair.split('=');
    return `export ${name}=${quote(value.join('='))}\n`;
  });
  const machine = {
    memory: o.memory,
    vcpus: o.vcpus,
    interactive: false,
    settings: { timeout: String(o.timeout) },
    command: `${exports.join('')}exec ${argv.map(quote).join(' ')}\n`,
  };
  return withMachine(machine, async (lab) => {
    for (let attempt = 1; ; attempt += 1) {
      const end = await runLab(
        { ...lab, socketDir: `${lab.socketDir}${attempt}` },
        { timeoutMs: o.timeout * 1000, signal: stop.signal },
      );
      if (end.kind === 'not-booted' && attempt < BOOT_TRIES) {
        say(`did not boot, trying once more: ${end.message}`);
        continue;
      }
      if (o.results !== undefined) {
        await cp(join(lab.jobDir, 'results'), o.results, { recursive: true });
        await cp(lab.consolePath, join(o.results, 'console.log')).catch(() => undefined);
      }
      if (end.kind !== 'exit') {
        say(`${end.kind}: ${end.message}`);
        return EXIT_LAB_FAILED;
      }
      say(
        `booted in ${(end.bootMs / 1000).toFixed(1)} s, ran for ${(end.jobMs / 1000).toFixed(1)} s`,
      );
      return end.code;
    }
  });
}

async function shell(o: { memory: number; vcpus: number }): Promise<number> {
  const machine = {
    ...o,
    interactive: true,
    settings: {
      rows: String(process.stdout.rows ?? 24),
      columns: String(process.stdout.columns ?? 80),
    },
    command: `export TERM=${quote(process.env['TERM'] ?? 'linux')}\nexec bash -l\n`,
  };
  return withMachine(machine, (lab) => {
    say('exit leaves the lab, and all that was changed in it is gone');
    return shellInLab(lab, stop.signal);
  });
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value <= 0) throw new InvalidArgumentError('a positive number');
  return value;
}

const program = new Command('scripts/lab').description(
  'A throw-away Debian 13 machine with KVM, vhost-vsock and cgroups v2, emulated.',
);
program
  .command('build')
  .description('make the root disk, where the cache lacks it')
  .option('--force', 'make it anew', false)
  .action(async (o: { force: boolean }) => {
    say(`root disk: ${(await buildRoot(o.force)).diskPath}`);
  });
program
  .command('run')
  .description('run a command in a new lab, in a copy of the project')
  .argument('<command...>')
  .option('--timeout <seconds>', 'end the command after this time', positive, 1_800)
  .option('--memory <mib>', 'memory of the lab', positive, 6_144)
  .option('--vcpus <n>', 'more than one makes nothing faster, see docs/lab.md', positive, 1)
  .option(
    '--env <name=value>',
    'environment variable; repeatable',
    (pair, all: string[]) => [...all, pair],
    [],
  )
  .option('--results <dir>', 'where to put the files that the command left in /results')
  .action(async (argv: string[], o: RunOptions) => {
    process.exitCode = await run(argv, o);
  });
program
  .command('shell')
  .description('open a shell in a new lab')
  .option('--memory <mib>', 'memory of the lab', positive, 6_144)
  .option('--vcpus <n>', 'number of vCPUs', positive, 1)
  .action(async (o: { memory: number; vcpus: number }) => {
    process.exitCode = await shell(o);
  });
program
  .command('clean')
  .description('remove the cached disks')
  .action(async () => {
    const removed = await cleanCache(cacheDir());
    say(removed.length === 0 ? 'nothing to remove' : `removed ${removed.join(' ')}`);
  });

try {
  await program.parseAsync();
} catch (error) {
  const { message, hint } = error as { message: string; hint?: string };
  say(hint === undefined ? message : `${message}\n  hint: ${hint}`);
  process.exitCode = EXIT_LAB_FAILED;
}
