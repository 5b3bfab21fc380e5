/** What a check says. */

/** `warn`: works without it, but slower, with less, or not yet. `fail`: the main job cannot work. */
type CheckStatus = 'ok' | 'warn' | 'fail';

/** One need of the host. */
export interface Check {
  /** Stable, for machines: `kvm.device`. */
  readonly id: string;
  readonly status: CheckStatus;
  /** What was found, as half a sentence. */
  readonly found: string;
  /** What to do, with the commands for Debian and Ubuntu. Only where it is not ok. */
  readonly fix?: string;
}

export function ok(id: string, found: string): Check {
  return { id, status: 'ok', found };
}

export function warn(id: string, found: string, fix: string): Check {
  return { id, status: 'warn', found, fix };
}

export function fail(id: string, found: string, fix: string): Check {
  return { id, status: 'fail', found, fix };
}
