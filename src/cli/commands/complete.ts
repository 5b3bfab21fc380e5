/** `qmp-agent __complete KIND`: names for the completion scripts, one a line. Never an error. */
import type { Command } from 'commander';
import type { CliContext } from '../context.ts';
import { loadVm, openImages, openTemplates } from '../vm-access.ts';

/** Adds the hidden command. */
export function registerComplete(program: Command, context: CliContext): void {
  program
    .command('__complete', { hidden: true })
    .description('names for the completion scripts')
    .argument('<kind>', 'vms, images or templates')
    .action(async (kind: string, _flags: unknown, command: Command) => {
      try {
        await context.prepare(command);
        for (const name of await names(kind, context)) context.print(name);
      } catch {
        // A shell that completes a word is no place for error messages.
      }
    });
}

async function names(kind: string, context: CliContext): Promise<string[]> {
  if (kind === 'images') {
    return (await (await openImages(context)).list()).map((image) => image.name);
  }
  if (kind === 'templates') {
    return (await (await openTemplates(context)).list()).map((template) => template.name);
  }
  const Vm = await loadVm();
  const vms = await Vm.list({ paths: context.paths });
  return vms.map((vm) => vm.name ?? vm.id);
}
