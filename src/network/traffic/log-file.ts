/** A VM's network log on disk: lines of JSON, bounded, the older half kept beside it. */
import { appendFile, chmod, rename, stat } from 'node:fs/promises';
import type { TrafficRecord } from './record.ts';

/** Most that one file takes; there are two. */
const MAX_FILE_BYTES = 4 * 2 ** 20;
/** The same of one that others may read: it is in memory (/run), and their guests fill it. */
const MAX_OPEN_BYTES = 2 ** 20;
/** Records that wait for the disk, at most. */
const MAX_WAITING = 1_000;

/** Where the file before the last rotation is. */
export function rotatedLogPath(path: string): string {
  return `${path}.1`;
}

/** Appends lines, to a file begun anew where it is full. @returns whether it was begun */
export async function appendToLog(
  path: string,
  lines: string,
  maxBytes = MAX_FILE_BYTES,
): Promise<boolean> {
  const size = await stat(path).then(
    ({ size: bytes }) => bytes,
    () => 0,
  );
  if (size > maxBytes) await rename(path, rotatedLogPath(path));
  await appendFile(path, lines, { mode: 0o600 });
  return size === 0 || size > maxBytes;
}

/** Appends; what a slow disk cannot take is counted, not kept. */
export class TrafficLog {
  readonly #path: string;
  readonly #isOpen: boolean;
  #waiting: string[] = [];
  #lost = 0;
  #writing: Promise<void> | undefined;

  /** @param o.isOpen everybody may read it who knows its path; it stays ours, who writes it. Default false */
  constructor(path: string, o: { isOpen?: boolean | undefined } = {}) {
    this.#path = path;
    this.#isOpen = o.isOpen === true;
  }

  add(record: TrafficRecord): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#lost += 1;
      return;
    }
    const lost = this.#lost === 0 ? {} : { leftOut: this.#lost };
    this.#lost = 0;
    this.#waiting.push(`${JSON.stringify({ ...record, ...lost })}\n`);
    this.#writing ??= this.#write().finally(() => (this.#writing = undefined));
  }

  /** Resolves when all that was added has been written, or could not be. */
  async settle(): Promise<void> {
    await this.#writing;
  }

  /** The VM, and with it the directory, may go at any time. */
  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.splice(0).join('');
      try {
        const isNew = await appendToLog(
          this.#path,
          lines,
          this.#isOpen ? MAX_OPEN_BYTES : MAX_FILE_BYTES,
        );
        if (isNew && this.#isOpen) await chmod(this.#path, 0o644);
      } catch {
        this.#lost += 1;
      }
    }
  }
}
