/** `qmp-agent logs`. */
import { once } from 'node:events';
import { InvalidArgumentError, type Command } from 'commander';
import type { CliContext } from '../context.ts';
import { connectVm } from '../vm-access.ts';

/** Most that is read of a log without `--follow`. */
const MAX_LOG_BYTES = 64 * 1024 * 1024;

interface LogsFlags {
  follow?: boolean;
  qemu?: boolean;
  tail?: number;
}

/** Adds `logs`. */
export function registerLogs(program: Command, context: CliContext): void {
  program
    .command('logs')
    .description("Show a VM's serial console: what kernel and init said.")
    .argument('<vm>', 'id, unique prefix of an id, or name')
    .option('-f, --follow', 'go on with what comes, until the VM is gone or Ctrl-C')
    .option('--qemu', "QEMU's own messages (its stderr) instead")
    .option('-n, --tail <lines>', 'only the last lines', lineCount)
    .action((vm: string, flags: LogsFlags) => logs(context, vm, flags));
}

function lineCount(value: string): number {
  if (!/^\d+$/.test(value)) throw new InvalidArgumentError('give a number of lines.');
  return Number(value);
}

async function logs(context: CliContext, idOrName: string, flags: LogsFlags): Promise<void> {
  const kind = flags.qemu === true ? 'qemu' : 'console';
  const vm = await connectVm(context, idOrName);
  try {
    if (flags.follow !== true || flags.tail !== undefined) {
      const text = await vm.logs({ kind, tailBytes: MAX_LOG_BYTES });
      const shown = flags.tail === undefined ? text : lastLines(text, flags.tail);
      if (flags.follow !== true) {
        context.stdout.write(shown);
        return;
      }
    }
    for await (const chunk of vm.followLogs({ kind, signal: context.signal })) {
      if (!context.stdout.write(chunk)) await once(context.stdout, 'drain');
    }
  } finally {
    await vm.close();
  }
}

function lastLines(text: string, count: number): string {
  const lines = text.split('\n');
  // A text that ends with a newline has an empty last element, which is no line.
  const complete = text.endsWith('\n') ? 1 : 0;
  return count === 0 ? '' : lines.slice(-(count + complete)).join('\n');
}
