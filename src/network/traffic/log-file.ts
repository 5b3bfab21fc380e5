/** A VM's network log on disk: lines of JSON, bounded, the older half kept beside it. */
import { appendFile, rename, stat } from 'node:fs/promises';
import type { TrafficRecord } from './record.ts';

/** Most that one file takes; there are two. */
const MAX_FILE_BYTES = 4 * 2 ** 20;
/** Records that wait for the disk, at most. */
const MAX_WAITING = 1_000;

/** Where the file before the last rotation is. */
export function rotatedLogPath(path: string): string {
  return `${path}.1`;
}

/** Appends; what a slow disk cannot take is counted, not kept. */
export class TrafficLog {
  readonly #path: string;
  #waiting: string[] = [];
  #lost = 0;
  #writing: Promise<void> | undefined;

  constructor(path: string) {
    this.#path = path;
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
        const size = await stat(this.#path).then(
          ({ size: bytes }) => bytes,
          () => 0,
        );
        if (size > MAX_FILE_BYTES) await rename(this.#path, rotatedLogPath(this.#path));
        await appendFile(this.#path, lines, { mode: 0o600 });
      } catch {
        this.#lost += 1;
      }
    }
  }
}
