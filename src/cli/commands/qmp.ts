/** `qmp-agent qmp`. */
import type { Command } from 'commander';
import { events } from '../../events.ts';
import type { CliContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { connectVm } from '../vm-access.ts';

/** Adds `qmp`. */
export function registerQmp(program: Command, context: CliContext): void {
  program
    .command('qmp')
    .description("Send a command to a VM's QEMU, or open a prompt for commands and events.")
    .argument('<vm>', 'id, unique prefix of an id, or name; or the path of a QMP socket')
    .argument('[command]', 'QMP command, e.g. query-status; without one a prompt opens')
    .argument('[json]', `arguments as a JSON object, e.g. '{"id": "disk0"}'`)
    .action((vm: string, command: string | undefined, json: string | undefined) =>
      talk(context, vm, command, json),
    );
}

async function talk(
  context: CliContext,
  vm: string,
  command: string | undefined,
  json: string | undefined,
): Promise<void> {
  const { runQmpCommand, runQmpPrompt } = await import('../qmp-prompt.ts');
  const { stdin: input, stdout: output, style, signal } = context;
  const path = await socketPath(context, vm);
  const onLine = events.traces('qmp')
    ? (direction: 'in' | 'out', line: string) => {
        events.emit('trace.qmp', { direction, line });
      }
    : undefined;
  if (command !== undefined) {
    await runQmpCommand({ target: path, command, json, out: output, signal, onLine });
    return;
  }
  const { failed } = await runQmpPrompt({ path, input, output, style, signal, onLine });
  if (failed > 0 && !input.isTTY) context.exitCode = EXIT.failure;
}

/** The VM's second monitor: the first belongs to the process that owns the VM. */
async function socketPath(context: CliContext, vm: string): Promise<string> {
  if (vm.includes('/')) return vm;
  const instance = await connectVm(context, vm);
  try {
    return instance.monitorPath;
  } finally {
    await instance.close();
  }
}
