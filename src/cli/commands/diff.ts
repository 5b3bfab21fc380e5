/** `qmp-agent diff`: which files have changed. */
import type { Command } from 'commander';
import type { FileChange } from '../../vm/diff/types.ts';
import type { CliContext } from '../context.ts';

const EPILOG = `
A checkpoint is a VM, a template, an image or the point of a fork (see qmp-agent tree), by name, id, or unique
prefix of an id; or VM@SNAPSHOT. Where a name fits several: vm:NAME, template:NAME, image:NAME.

Prints A (added), C (changed) or D (deleted) and the path. A path with control characters, quotes or bytes that
are no UTF-8 is in double quotes, with escapes as of C.

Examples:
  qmp-agent diff work                  what VM work has changed since it was made
  qmp-agent diff work@clean work       since its snapshot clean
  qmp-agent diff --json left right     between two VMs, with what about each file`;

/** What stands for each kind of change, as in `docker diff`. */
const LETTERS = { added: 'A', changed: 'C', deleted: 'D' } as const;

/** Adds `diff`. */
export function registerDiff(program: Command, context: CliContext): void {
  program
    .command('diff')
    .description('Show which files have changed from one checkpoint to another.')
    .argument('<checkpoint>', 'where from; alone: where to, from what it stands on')
    .argument('[other]', 'where to')
    .option('--json', 'print everything about each file as JSON')
    .addHelpText('after', EPILOG)
    .action((one: string, other: string | undefined) => diff(context, one, other));
}

async function diff(context: CliContext, one: string, other: string | undefined): Promise<void> {
  const { diffCheckpoints } = await import('../../vm/diff/named.ts');
  const { paths, signal } = context;
  const found = await diffCheckpoints(one, other, { paths, signal });
  if (context.json) context.printJson(found);
  else for (const change of found.changes) context.print(lineOf(change));
}

/** A change in one line, whatever is in the path. Pure. */
export function lineOf({ kind, path, pathBase64 }: FileChange): string {
  const bytes =
    pathBase64 === undefined ? Buffer.from(path, 'utf8') : Buffer.from(pathBase64, 'base64');
  const isPlain = pathBase64 === undefined && !/[\p{C}\p{Zl}\p{Zp}"\\]/u.test(path);
  return `${LETTERS[kind]} ${isPlain ? path : quoted(bytes)}`;
}

/** In double quotes, as git does: all that is not printable ASCII as octal digits. */
function quoted(bytes: Buffer): string {
  let text = '';
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    if (character === '"' || character === '\\') text += `\\${character}`;
    else if (character === '\n') text += String.raw`\n`;
    else if (character === '\t') text += String.raw`\t`;
    else if (byte < 0x20 || byte > 0x7e) text += `\\${byte.toString(8).padStart(3, '0')}`;
    else text += character;
  }
  return `"${text}"`;
}
