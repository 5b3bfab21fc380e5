/** `qmp-agent config`. */
import type { Command } from 'commander';
import { isThere } from '../../host-files.ts';
import type { CliContext } from '../context.ts';

/** Adds `config`. */
export function registerConfig(program: Command, context: CliContext): void {
  const config = program.command('config').description('Show the settings.');
  config
    .command('show')
    .description('Show every setting, its value and where that comes from.')
    .option('--json', 'print JSON')
    .action(() => show(context));
  config
    .command('path')
    .description('Show the configuration files, in the order in which they are read.')
    .option('--json', 'print JSON')
    .action(() => path(context));
}

async function show(context: CliContext): Promise<void> {
  const { describeOrigin } = await import('../../config/layers.ts');
  const { config, origins, paths } = context.loaded;
  const effective: Record<string, Record<string, unknown>> = {
    ...config,
    state: { dataDir: paths.dataDir, runtimeDir: paths.runtimeDir, cacheDir: paths.cacheDir },
  };
  const rows = [...origins].map(([name, origin]) => {
    const [section = '', key = ''] = name.split('.');
    return { name, value: effective[section]?.[key], origin };
  });
  if (context.json) {
    context.printJson(
      Object.fromEntries(
        rows.map(({ name, value, origin }) => [name, { value: value ?? null, origin }]),
      ),
    );
    return;
  }
  const left = rows.map(({ name, value }) => `${name} = ${shown(value)}`);
  const width = Math.max(...left.map((text) => text.length));
  for (const [index, { origin }] of rows.entries()) {
    const text = (left[index] ?? '').padEnd(width);
    const note = `(${describeOrigin(origin)})`;
    context.print(`${text}   ${origin.kind === 'default' ? context.style.dim(note) : note}`);
  }
}

function shown(value: unknown): string {
  if (value === undefined) return '(unset)';
  if (Array.isArray(value)) return value.length === 0 ? '(none)' : value.join(',');
  return typeof value === 'string' ? value : JSON.stringify(value);
}

async function path(context: CliContext): Promise<void> {
  const { resolvePaths } = await import('../../config/paths.ts');
  const files = await Promise.all(
    resolvePaths(context.env).configFiles.map(async (file) => ({
      file,
      exists: await isThere(file),
    })),
  );
  if (context.json) {
    context.printJson(files);
    return;
  }
  for (const { file, exists } of files) {
    context.print(exists ? file : `${file} ${context.style.dim('(not there)')}`);
  }
}
