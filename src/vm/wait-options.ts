/** Bounds of every call that waits. */
export interface WaitOptions {
  /** Ends the wait; the call rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** ms; each method names its default. */
  timeoutMs?: number | undefined;
}
