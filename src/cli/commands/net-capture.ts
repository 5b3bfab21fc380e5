/** `qmp-agent net capture`: the packets of a VM, to a file or to who reads from us. */
import { InvalidArgumentError, type Command } from 'commander';
import { formatBytes, parseMs } from '../../config/units.ts';
import { ConfigError } from '../../errors.ts';
import {
  MAX_SNAPLEN,
  type CaptureEnd,
  type CaptureOptions,
  type CaptureResult,
} from '../../network/index.ts';
import { readSize } from '../capture-flags.ts';
import { seconds, wholeNumberTo } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { signalExitCode } from '../exit-codes.ts';
import { withVm } from '../vm-access.ts';

interface CaptureFlags {
  output?: string;
  maxSize?: number;
  snaplen?: number;
  duration?: number;
  follow?: boolean;
}

const EPILOG = `
Ends with Ctrl-C, at its bounds, and with the VM's tap: when it is stopped, suspended, killed or removed; with --follow it
waits then for the VM's next start, until the VM is removed. There is all that the guest sends, what is denied too, and
what reaches it.

Examples:
  qmp-agent net capture box -o box.pcap
  qmp-agent net capture box | wireshark -k -i -
  qmp-agent net capture box | tcpdump -n -r -`;

const WHY: Readonly<Record<CaptureEnd, string>> = {
  closed: 'interrupted',
  duration: 'its time is over',
  'max-bytes': 'its size is reached',
  'vm-ended': 'the VM has ended',
  failed: 'it failed',
};

/** Its next start has another tap. */
const AGAIN =
  ' (stopped, suspended or removed, or its guest went down; --follow waits for its next start)';

/** Makes `net capture` of a command that has the VM as its argument. */
export function addNetCapture(command: Command, context: CliContext): void {
  command
    .option('-o, --output <file>', 'a file that is not there yet; - is stdout (default: stdout)')
    .option('--max-size <size>', 'end before it is larger, e.g. 1G (default: 100M)', readSize)
    .option(
      '--snaplen <bytes>',
      'keep so much of each packet (default: all of it)',
      wholeNumberTo(MAX_SNAPLEN),
    )
    .option('--duration <time>', 'end after this time, e.g. 90s, 5m', readDuration)
    .option('-f, --follow', 'go on when the VM is started or resumed again, until it is removed')
    .addHelpText('after', EPILOG)
    .action((vm: string, flags: CaptureFlags) => capture(context, vm, flags));
}

async function capture(context: CliContext, idOrName: string, flags: CaptureFlags): Promise<void> {
  const { output: file = '-', maxSize: maxBytes, snaplen, duration: durationMs, follow } = flags;
  const options: CaptureOptions = {
    ...(file === '-' ? { stream: context.stdout } : { file }),
    ...{ maxBytes, snaplen, durationMs, follow },
  };
  if (file === '-' && context.stdout.isTTY) {
    throw new ConfigError('packets are no text for a terminal', {
      ...{ field: '--output', value: flags.output },
      hint: 'Name a file (-o FILE), or read from a pipe: | wireshark -k -i -.',
    });
  }
  const { signal } = context;
  const result = await withVm(context, idOrName, async (vm) => {
    await using running = await vm.network.capture({ ...options, signal });
    context.note(`qmp-agent: capturing ${idOrName} to ${file === '-' ? 'stdout' : file}`);
    return await running.ended;
  });
  tell(context, { file, isFollowed: follow === true }, result);
  if (result.error === undefined) return;
  const { code } = result.error as NodeJS.ErrnoException;
  if (code !== 'EPIPE') throw result.error;
  context.exitCode = signalExitCode('SIGPIPE'); // the reader has had enough
}

/** Where packets go to stdout the figures do not. */
function tell(
  context: CliContext,
  { file, isFollowed }: { file: string; isFollowed: boolean },
  { error: _, ...result }: CaptureResult,
): void {
  const { packets, bytes, dropped, reason } = result;
  const next = reason === 'vm-ended' && !isFollowed ? AGAIN : '';
  const line = context.json
    ? JSON.stringify(result)
    : `qmp-agent: ${packets} packets captured (${formatBytes(bytes)}), ${dropped ?? 'nobody knows how many'} dropped: ${WHY[reason]}${next}`;
  if (context.json && file !== '-') context.print(line);
  else context.stderr.write(`${line}\n`);
}

function readDuration(text: string): number {
  const ms = parseMs(seconds(text));
  if (ms !== undefined && ms > 0) return ms;
  throw new InvalidArgumentError('give a time, as 90s or 5m.');
}
