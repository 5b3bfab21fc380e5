import { eitherSignal } from '../abort.ts';

/** Where one fails the others are ended, and have ended: whoever cleans up meets nobody who still writes. */
export async function allOrNone(
  given: AbortSignal | undefined,
  begin: (signal: AbortSignal) => readonly Promise<void>[],
): Promise<void> {
  const failed = new AbortController();
  const works = begin(eitherSignal(failed.signal, given));
  try {
    await Promise.all(works);
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(works);
    throw error;
  }
}
