/** How long to wait after failures. Pure. */

/** After the first failure. */
export const BACKOFF_MIN_MS = 500;
/** However many failures there were. */
export const BACKOFF_MAX_MS = 60_000;

/**
 * ms to wait after so many failures in a row: doubled each time, up to {@link BACKOFF_MAX_MS}, and up to
 * a quarter less, so that several pools on one broken image do not try in step.
 * @param random 0 (inclusive) to 1
 */
export function backoffMs(failures: number, random: number): number {
  const full = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** (failures - 1));
  return Math.round(full * (1 - random / 4));
}
