/** `qmp-agent doctor`. */
import type { Command } from 'commander';
import { loadConfig, type LoadedConfig } from '../../config/load.ts';
import { examineHost, judgeConfig, type Check } from '../../doctor/index.ts';
import { QmpAgentError } from '../../errors.ts';
import { collectFlags } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';

/** Adds `doctor`. */
export function registerDoctor(program: Command, context: CliContext): void {
  program
    .command('doctor')
    .description(
      'Check what this host offers and what it lacks, and say what to do. Exit code 1 where VMs cannot work.',
    )
    .option('--json', 'print a JSON array of checks')
    .action((_flags: unknown, command: Command) => doctor(context, command));
}

async function doctor(context: CliContext, command: Command): Promise<void> {
  const { loaded, check } = await configuration(context, command);
  const { vm, network, qemu } = loaded.config;
  const { openImageStore } = await import('../vm-access.ts');
  const checks = [
    check,
    ...(await examineHost({
      env: context.env,
      paths: loaded.paths,
      qemuProgram: qemu.path,
      vmMemoryMib: vm.memoryMib,
      image: vm.image,
      defaultNetwork: vm.network ?? network.default,
      openImage: async (name) => (await openImageStore(loaded.paths)).get(name),
    })),
  ];
  const failed = checks.filter(({ status }) => status === 'fail').length;
  const warned = checks.filter(({ status }) => status === 'warn').length;
  if (context.json) context.printJson(checks);
  else print(context, checks, failed, warned);
  context.exitCode = failed > 0 ? EXIT.failure : EXIT.ok;
}

/** A broken configuration is one finding among others: the checks go on with the defaults. */
async function configuration(
  context: CliContext,
  command: Command,
): Promise<{ loaded: LoadedConfig; check: Check }> {
  const configFile = command.optsWithGlobals<{ config?: string }>().config;
  try {
    const flags = collectFlags(command);
    return {
      loaded: await loadConfig({ env: context.env, flags, configFile }),
      check: judgeConfig(undefined),
    };
  } catch (error) {
    if (!(error instanceof QmpAgentError)) throw error;
    const { mergeLayers } = await import('../../config/load.ts');
    const { resolvePaths } = await import('../../config/paths.ts');
    return { loaded: mergeLayers([], resolvePaths(context.env), '/'), check: judgeConfig(error) };
  }
}

function print(
  context: CliContext,
  checks: readonly Check[],
  failed: number,
  warned: number,
): void {
  const { green, yellow, red, dim, bold } = context.style;
  const marks = { ok: green('ok  '), warn: yellow('warn'), fail: red('fail') };
  for (const { id, status, found, fix } of checks) {
    context.print(`${marks[status]}  ${found} ${dim(`[${id}]`)}`);
    if (fix !== undefined) context.print(`        ${bold('do:')} ${fix}`);
  }
  context.print('');
  if (failed > 0)
    context.print(red(`VMs cannot work here: ${failed} to mend, ${warned} to consider.`));
  else if (warned > 0) context.print(`VMs work here; ${warned} to consider.`);
  else context.print(green('Everything is there.'));
}
