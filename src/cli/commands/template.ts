/** `qmp-agent template …`. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { formatAge, formatBytes } from '../../config/units.ts';
import { ConfigError } from '../../errors.ts';
import type { BrokenTemplate, TemplateInfo } from '../../vm/template/types.ts';
import { addVmOptions, ConfigOption } from '../config-flags.ts';
import { attempt, type Outcome } from '../attempt.ts';
import type { CliContext } from '../context.ts';
import { addIpv6Option, addLanOptions, lanOf, type LanFlags } from '../egress-flags.ts';
import { startSpinner } from '../progress.ts';
import { machineOptions, openTemplates } from '../vm-access.ts';

interface CreateFlags extends LanFlags {
  provision?: string;
  warm?: string;
  force?: boolean;
  ipv6?: boolean;
}

const EPILOG = `
A clone goes on from where the template stands: see qmp-agent clone, and qmp-agent run --template.

Examples:
  qmp-agent template create plain
  qmp-agent template create node --provision setup.sh --warm 'node -e 0'`;

/** Adds `template` with its subcommands. */
export function registerTemplate(program: Command, context: CliContext): void {
  const template = program
    .command('template')
    .description('Templates: machines frozen once, which clones go on from.');
  const create = template
    .command('create')
    .description('Boot a VM, provision it, warm it up and freeze it. Prints the name.')
    .argument('<template>', 'name of the template')
    .option('--provision <file>', 'shell script that runs in it as root (/bin/sh -e)')
    .option('--warm <command>', "shell line that runs in it as the image's user, at the end")
    .addOption(
      new ConfigOption(
        '--memory-dir <dir>',
        'directory for its memory, e.g. on a tmpfs (default: with its disk)',
        ['state', 'memoryDir'],
      ),
    )
    .option('--force', 'replace a template of that name that no VM stands on')
    .option('--json', 'print everything about it as JSON')
    .addHelpText('after', EPILOG)
    .action((name: string, flags: CreateFlags) => createOne(context, name, flags));
  addLanOptions(addIpv6Option(addVmOptions(create)));
  template
    .command('list')
    .alias('ls')
    .description('List templates.')
    .option('-q, --quiet', 'print names only')
    .option('--json', 'print a JSON array')
    .action((flags: { quiet?: boolean }) => list(context, flags.quiet === true));
  template
    .command('inspect')
    .description('Show everything about templates as a JSON array.')
    .argument('<template...>', 'names')
    .option('--json', 'errors as JSON too')
    .action((names: string[]) => inspect(context, names));
  template
    .command('remove')
    .alias('rm')
    .description('Remove templates that no VM stands on.')
    .argument('<template...>', 'names')
    .option('--json', 'print a JSON array of results')
    .action((names: string[]) => remove(context, names));
}

async function createOne(context: CliContext, name: string, flags: CreateFlags): Promise<void> {
  const provision = flags.provision === undefined ? undefined : await readScript(flags.provision);
  const { createTemplate } = await import('../../vm/template/create.ts');
  const spinner = startSpinner(context, 'Creating the template');
  const info = await createTemplate(name, {
    ...machineOptions(context),
    lan: lanOf(flags),
    ipv6: flags.ipv6,
    provision,
    warm: flags.warm,
    memoryDir: context.config.state.memoryDir,
    replace: flags.force === true,
    onOutput: (text) => context.note(text.trimEnd()),
  }).finally(() => spinner.stop());
  if (context.json) context.printJson(info);
  else context.print(info.name);
}

async function readScript(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw new ConfigError(`${path} cannot be read: ${(error as Error).message}`, {
      field: '--provision',
      value: path,
      hint: 'Give the path of a shell script.',
    });
  });
}

async function list(context: CliContext, quiet: boolean): Promise<void> {
  const templates = await (await openTemplates(context)).list();
  if (context.json) {
    context.printJson(templates);
  } else if (quiet) {
    for (const { name } of templates) context.print(name);
  } else {
    const { printTable } = await import('../table.ts');
    const head = ['NAME', 'IMAGE', 'MEMORY', 'MACHINE', 'CREATED', 'SIZE', 'USED BY'];
    printTable(context, head, templates.map(row));
    for (const { defect } of templates) if (defect !== undefined) context.note(defect);
  }
}

function row(template: TemplateInfo | BrokenTemplate): (string | undefined)[] {
  const { name, usedBytes, usedBy } = template;
  if (template.defect !== undefined) {
    const broken = ['broken', undefined, undefined, undefined];
    return [name, ...broken, formatBytes(usedBytes), usedBy.join(', ')];
  }
  return [
    template.name,
    template.image,
    `${template.memoryMib} MiB`,
    `${template.machine}, ${template.accel}`,
    formatAge(template.createdAt),
    formatBytes(template.usedBytes),
    template.usedBy.join(', '),
  ];
}

async function inspect(context: CliContext, names: readonly string[]): Promise<void> {
  const store = await openTemplates(context);
  context.printJson(await Promise.all(names.map((name) => store.inspect(name))));
}

async function remove(context: CliContext, names: readonly string[]): Promise<void> {
  const store = await openTemplates(context);
  const outcomes: Outcome[] = [];
  for (const name of new Set(names)) {
    const action = () => store.remove(name, { signal: context.signal });
    outcomes.push(await attempt(context, 'template', name, action));
  }
  if (context.json) context.printJson(outcomes);
}
