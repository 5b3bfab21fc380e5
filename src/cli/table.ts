/** Tables as docker prints them: columns by spaces, no frames, so that `awk` can read them. */
import Table from 'cli-table3';
import type { CliContext } from './context.ts';

/** Cells that are undefined are shown as `-`. */
export type Row = readonly (string | number | undefined)[];

/** Prints a table with a heading. */
export function printTable(
  context: CliContext,
  head: readonly string[],
  rows: readonly Row[],
): void {
  const table = new Table({
    chars: {
      ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '' },
      ...{ bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
      ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '' },
      middle: '   ',
    },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
  });
  table.push(head.map((word) => context.style.bold(word)));
  for (const row of rows) table.push(row.map((cell) => String(cell ?? '-')));
  for (const line of table.toString().split('\n')) context.print(line.trimEnd());
}
