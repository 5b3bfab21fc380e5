import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/**
 * Pipes into a program's stdin and closes it. Rejects with what reading the source throws, and only
 * with that: where the program ends before it has read all, its exit code tells why.
 */
export async function feedProgram(source: AsyncIterable<Buffer>, stdin: Writable): Promise<void> {
  let fault: { readonly error: unknown } | undefined;
  async function* watched(): AsyncGenerator<Buffer> {
    try {
      yield* source;
    } catch (error) {
      fault = { error };
      throw error;
    }
  }
  await pipeline(watched(), stdin).catch(() => undefined);
  if (fault !== undefined) throw fault.error;
}
