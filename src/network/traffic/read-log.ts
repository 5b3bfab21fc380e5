/** Reads a VM's network log while the service writes it, and sets files of it aside. */
import type { Stats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { rotatedLogPath } from './log-file.ts';

/** Between two looks at a log that grows. */
const FOLLOW_MS = 200;
const READ_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/** How a log is read. */
export interface ReadLogOptions {
  /** Waits for more until `signal` aborts. Default false. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The lines of a log, oldest first, each once: of the file before the last rotation, too, and across those that come
 * while it is read. Only what is rotated away twice between two lines that are asked for is lost.
 * @throws the signal's reason
 */
export async function* readLog(path: string, o: ReadLogOptions = {}): AsyncGenerator<string> {
  // Before the older one: what is rotated meanwhile is this very file. In the midst of a rotation only that is there.
  let current = (await LogFile.open(path)) ?? (await LogFile.open(rotatedLogPath(path)));
  try {
    yield* linesOfOther(rotatedLogPath(path), [current]);
    for (;;) {
      if (current !== undefined) yield* current.lines();
      if (o.follow !== true) return;
      await delay(FOLLOW_MS, undefined, { signal: o.signal }).catch(() => undefined);
      o.signal?.throwIfAborted();
      const id = await idOf(path);
      if (id === undefined || id === current?.id) continue;
      if (current !== undefined) yield* current.lines(); // its last ones
      const old: LogFile | undefined = current;
      const next = await LogFile.open(path);
      if (next === undefined) continue; // rotated once more since; without what we have, that would be read twice
      current = next;
      try {
        yield* linesOfOther(rotatedLogPath(path), [old, current]); // two rotations since the last look
      } finally {
        await old?.close(); // until then no other file has its number
      }
    }
  } finally {
    await current?.close();
  }
}

/** All lines of a file, where there is one and it is none of these. */
async function* linesOfOther(
  path: string,
  known: readonly (LogFile | undefined)[],
): AsyncGenerator<string> {
  const file = await LogFile.open(path);
  if (file === undefined) return;
  try {
    if (known.every((one) => one?.id !== file.id)) yield* file.lines();
  } finally {
    await file.close();
  }
}

/** One file of a log, open whatever it is called by now. */
class LogFile {
  /** Tells it from others that are called so before or after it. */
  readonly id: string;
  readonly #handle: FileHandle;
  #at = 0;
  /** The begin of a line. */
  #rest = Buffer.alloc(0);

  private constructor(handle: FileHandle, id: string) {
    this.#handle = handle;
    this.id = id;
  }

  /** Undefined: there is none. */
  static async open(path: string): Promise<LogFile | undefined> {
    const handle = await open(path, 'r').catch(() => undefined);
    if (handle === undefined) return undefined;
    return new LogFile(handle, idIn(await handle.stat()));
  }

  /** Those that have come since the last call. */
  async *lines(): AsyncGenerator<string> {
    for (;;) {
      const { bytesRead, buffer } = await this.#handle.read({
        buffer: Buffer.alloc(READ_BYTES),
        position: this.#at,
      });
      if (bytesRead === 0) return;
      this.#at += bytesRead;
      let text = Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]);
      for (let end = text.indexOf(NEWLINE); end >= 0; end = text.indexOf(NEWLINE)) {
        const line = text.toString('utf8', 0, end);
        text = text.subarray(end + 1);
        this.#rest = text; // the reader may stop here, and go on later
        yield line;
      }
      this.#rest = text;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

async function idOf(path: string): Promise<string | undefined> {
  const facts = await stat(path).catch(() => undefined);
  return facts && idIn(facts);
}

function idIn({ dev, ino }: Stats): string {
  return `${dev}:${ino}`;
}
