/** `qmp-agent console`. */
import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Command } from 'commander';
import type { CliContext } from '../context.ts';
import { connectVm } from '../vm-access.ts';

/** Ctrl-], as telnet and virsh have it. */
const ESCAPE = 0x1d;

/** Adds `console`. */
export function registerConsole(program: Command, context: CliContext): void {
  program
    .command('console')
    .description("Connect the terminal to a VM's serial console. Ctrl-] ends the connection.")
    .argument('<vm>', 'id, unique prefix of an id, or name')
    .action((vm: string) => openConsole(context, vm));
}

async function openConsole(context: CliContext, idOrName: string): Promise<void> {
  const vm = await connectVm(context, idOrName);
  try {
    const wire = await vm.console({ signal: context.signal });
    context.note(`qmp-agent: console of ${vm.name ?? vm.id}; Ctrl-] ends the connection`);
    await join(context, wire);
    context.note('\nqmp-agent: console closed');
  } finally {
    await vm.close();
  }
}

/** Both ways, until the escape key, the end of stdin or of the VM, or a signal. */
async function join(context: CliContext, wire: Duplex): Promise<void> {
  const { stdin, stdout } = context;
  const raw = stdin.isTTY;
  const onKeys = (chunk: Buffer): void => {
    // In a pipe the byte is data like any other.
    const end = raw ? chunk.indexOf(ESCAPE) : -1;
    wire.write(end === -1 ? chunk : chunk.subarray(0, end));
    if (end !== -1) wire.end();
  };
  // stdin's end is not the console's: what the guest still prints is wanted. A terminal has no end.
  const onAbort = (): void => void wire.destroy();
  context.signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (raw) stdin.setRawMode(true);
    stdin.on('data', onKeys);
    wire.on('data', (chunk: Buffer) => {
      if (stdout.write(chunk)) return;
      wire.pause();
      stdout.once('drain', () => wire.resume());
    });
    await finished(wire, { readable: !raw, writable: raw }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    });
  } finally {
    context.signal.removeEventListener('abort', onAbort);
    stdin.off('data', onKeys);
    if (raw) stdin.setRawMode(false);
    stdin.pause();
    wire.destroy();
  }
}
