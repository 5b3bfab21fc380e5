import { armDeadline } from './deadline.ts';
import type { WaitOptions } from './deadline.ts';
import type { EventHub } from './event-hub.ts';
import type { RawEvent } from './messages.ts';

/** What a wait for an event is told. */
export interface EventWaitOptions extends WaitOptions {
  /** For the TimeoutError. */
  operation: string;
  /** Makes the error for a connection that ends first. */
  lost: () => Error;
}

/**
 * Waits for the first event from now on that `takes` accepts.
 *
 * @throws what `takes` throws; what `lost` makes; TimeoutError; `signal.reason`.
 */
export function nextEvent(
  hub: EventHub,
  takes: (event: RawEvent) => boolean,
  { operation, lost, ...wait }: EventWaitOptions,
): Promise<RawEvent> {
  return new Promise((resolve, reject) => {
    let unlisten = (): void => undefined;
    const fail = (error: unknown): void => {
      disarm();
      unlisten();
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
      reject(error);
    };
    const hint = 'Raise timeoutMs, or look at what QEMU does instead (query-status).';
    const disarm = armDeadline(operation, wait, hint, fail);
    unlisten = hub.listen({
      onEvent: (event) => {
        try {
          if (!takes(event)) return;
        } catch (error) {
          fail(error);
          return;
        }
        disarm();
        unlisten();
        resolve(event);
      },
      onEnd: () => {
        fail(lost());
      },
    });
  });
}
