#!/usr/bin/env -S node --
/**
 * Entry point of the `qmp-agent` command.
 *
 * Without the `--` above, Node takes `--env-file` for its own wherever it stands, and what is meant for
 * the guest changes this process: `NODE_OPTIONS` in a project's file would run its code on the host.
 */
import { EXIT, signalExitCode } from './exit-codes.ts';
import { readVersion } from './version.ts';

/** How long the last output may take to leave once a signal asked the program to end. */
const FLUSH_AFTER_SIGNAL_MS = 1_000;

async function main(args: readonly string[]): Promise<number> {
  // Scripts ask for the version often, and nothing else has to be loaded for it.
  if (args.length === 1 && (args[0] === '--version' || args[0] === '-V')) {
    process.stdout.write(`${readVersion()}\n`);
    return EXIT.ok;
  }
  const { CliContext } = await import('./context.ts');
  const { runProgram } = await import('./run-program.ts');
  const context = new CliContext();
  context.interrupts.listen();
  watchStdout();
  const code = await runProgram(args, context);
  const { received } = context.interrupts;
  await flush(received === undefined ? undefined : FLUSH_AFTER_SIGNAL_MS);
  return code;
}

/** A reader that has gone (`qmp-agent list | head -1`) ends the program as SIGPIPE would. */
function watchStdout(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' && process.stdout.listenerCount('error') === 1) {
      process.exit(signalExitCode('SIGPIPE'));
    }
  });
  // Nobody is left to tell.
  process.stderr.on('error', () => undefined);
}

/** Waits until all output has left: `process.exit` would cut a pipe's off. */
async function flush(limitMs: number | undefined): Promise<void> {
  const left = [process.stdout, process.stderr]
    .filter((stream) => stream.writableLength > 0 && !stream.destroyed)
    .map((stream) => new Promise<void>((resolve) => stream.write('', () => resolve())));
  const limit =
    limitMs === undefined
      ? []
      : [new Promise<void>((resolve) => setTimeout(resolve, limitMs).unref())];
  await Promise.race([Promise.all(left), ...limit]);
}

// Open handles (a terminal's stdin, say) must not keep the process once its work is done.
process.exit(await main(process.argv.slice(2)));
