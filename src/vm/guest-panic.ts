/** Finding a kernel's panic in the text of a serial console. Pure. */

/** What every panic of Linux starts with: kernel/panic.c. */
const MARK = 'Kernel panic - not syncing';
/** The message again, when the kernel has nothing more to say. */
const END_MARK = `---[ end ${MARK}`;
/** What our init says before it ends, and the kernel panics for want of an init. */
const INIT_MARK = 'qmp-agent init: ';
/** How the kernel calls that: kernel/exit.c. Of any other panic the init is not the cause. */
const INIT_ENDED = 'Attempted to kill init';
/** Longest panic text that is kept: the message, registers and call trace. */
const MAX_PANIC_CHARS = 4_096;
/** Lines of the console before the panic in which our init's last words are looked for. */
const INIT_LINES = 40;

/** Notices a panic in a stream of pieces, wherever the pieces are cut. */
export class PanicDetector {
  #tail = '';

  /** @returns whether the mark has come with this piece */
  push(piece: Buffer): boolean {
    const text = this.#tail + piece.toString('latin1');
    this.#tail = text.slice(-(MARK.length - 1));
    return text.includes(MARK);
  }
}

/**
 * The last panic in a console's text, from its message on; our init's last words first, where they
 * are the cause. Undefined where there was none.
 */
export function extractPanic(consoleText: string): string | undefined {
  const last = consoleText.lastIndexOf(MARK);
  // Where the last mark is that of the end, the panic began before it; if that much is known.
  const begin = isWholePanic(consoleText)
    ? consoleText.lastIndexOf(MARK, last - MARK.length)
    : last;
  const start = begin === -1 ? last : begin;
  if (start === -1) return undefined;
  const panic = printable(consoleText.slice(start, start + MAX_PANIC_CHARS)).trimEnd();
  const before = consoleText.slice(0, start).split('\n').slice(-INIT_LINES);
  const words = panic.includes(INIT_ENDED)
    ? before.findLast((line) => line.includes(INIT_MARK))
    : undefined;
  const cause =
    words === undefined ? '' : `${printable(words.slice(words.indexOf(INIT_MARK))).trim()}\n`;
  return `${cause}${panic}`;
}

/** Whether the kernel has said of its last panic all that it has to say. */
export function isWholePanic(consoleText: string): boolean {
  const end = consoleText.lastIndexOf(END_MARK);
  return end !== -1 && consoleText.lastIndexOf(MARK) === end + END_MARK.length - MARK.length;
}

/** The first line, for an error's message. */
export function panicSummary(panic: string): string {
  return panic.split('\n', 1)[0]?.trim() ?? '';
}

/** A guest's text for a person's terminal: no control sequences. */
export function printable(text: string): string {
  return text
    .replace(/\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[ -/]*[0-Z\\-~])?/g, '')
    .replace(/[^\t\n\x20-\x7e\u00a0-\uffff]/g, '');
}
