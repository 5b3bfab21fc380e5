/** `pause`, `suspend`, `resume`, `start`, `stop`, `kill` and `remove`: one or several VMs each. */
import type { Command } from 'commander';
import { NotFoundError } from '../../errors.ts';
import type { VmInstance, VmStatics } from '../../vm/api.ts';
import { attempt } from '../attempt.ts';
import { ConfigOption, seconds } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { connectVm, loadVm } from '../vm-access.ts';

/** Adds `pause`. */
export function registerPause(program: Command, context: CliContext): void {
  each(program, 'pause', 'Stop the virtual CPUs of VMs; memory and sockets stay.').action(
    (names: string[]) => onEach(context, names, (vm) => vm.pause({ signal: context.signal })),
  );
}

/** Adds `suspend`. */
export function registerSuspend(program: Command, context: CliContext): void {
  const what = 'Write the memory of VMs to disk and end their QEMU; `resume` brings them back.';
  each(program, 'suspend', what).action((names: string[]) =>
    onEach(context, names, (vm) => vm.suspend({ signal: context.signal })),
  );
}

/** Adds `resume`. */
export function registerResume(program: Command, context: CliContext): void {
  each(program, 'resume', 'Let paused and suspended VMs go on.').action((names: string[]) =>
    onEach(context, names, (vm) => vm.resume({ signal: context.signal })),
  );
}

/** Adds `start`. */
export function registerStart(program: Command, context: CliContext): void {
  each(program, 'start', 'Start stopped VMs and wait until they are ready.')
    .option('--discard', 'suspended ones too; what they have in memory is lost')
    .action((names: string[], flags: { discard?: boolean }) =>
      onEach(context, names, (vm) =>
        vm.start({
          signal: context.signal,
          timeoutMs: context.config.vm.readyTimeoutMs,
          discard: flags.discard === true,
        }),
      ),
    );
}

/** Adds `stop`. */
export function registerStop(program: Command, context: CliContext): void {
  each(program, 'stop', 'Shut VMs down: by the guest itself, and by force where it does not.')
    .addOption(
      new ConfigOption(
        '-t, --timeout <time>',
        'what the guest gets to go down by itself (default: 15s)',
        ['vm', 'stopGraceMs'],
        seconds,
      ),
    )
    .action((names: string[]) =>
      onEach(context, names, (vm) =>
        vm.stop({ signal: context.signal, graceMs: context.config.vm.stopGraceMs }),
      ),
    );
}

/** Adds `kill`. */
export function registerKill(program: Command, context: CliContext): void {
  each(program, 'kill', 'End VMs at once, as pulling the plug does.')
    .option('--discard', 'suspended ones too; what they have in memory is lost')
    .action((names: string[], flags: { discard?: boolean }) =>
      onEach(context, names, (vm) =>
        vm.kill({ signal: context.signal, discard: flags.discard === true }),
      ),
    );
}

/** Adds `remove`. */
export function registerRemove(program: Command, context: CliContext): void {
  each(program, 'remove', 'Delete stopped VMs with their disks.')
    .alias('rm')
    .option('-f, --force', 'kill running ones first; no error where there is no such VM')
    .action((names: string[], flags: { force?: boolean }) =>
      onEach(
        context,
        names,
        (vm) => vm.remove({ signal: context.signal, force: flags.force === true }),
        flags.force === true,
      ),
    );
}

function each(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .argument('<vm...>', 'ids, unique prefixes of ids, or names')
    .option('--json', 'print a JSON array of results');
}

/**
 * Does the same to several VMs at once and goes on past failures: prints each name that worked, as
 * docker does, and reports each that did not.
 */
async function onEach(
  context: CliContext,
  names: readonly string[],
  action: (vm: VmInstance, Vm: VmStatics) => Promise<unknown>,
  missingIsFine = false,
): Promise<void> {
  const Vm = await loadVm();
  const isFine = (error: unknown) => missingIsFine && error instanceof NotFoundError;
  const outcomes = await Promise.all(
    [...new Set(names)].map((name) => {
      const connected = async () => {
        const vm = await connectVm(context, name);
        try {
          await action(vm, Vm);
        } finally {
          await vm.close();
        }
      };
      return attempt(context, 'vm', name, connected, isFine);
    }),
  );
  if (context.json) context.printJson(outcomes);
}
