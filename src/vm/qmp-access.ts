/**
 * Talking to a VM's QEMU. One QMP server serves one client at a time, so: the owner of an ephemeral
 * VM keeps the first server for itself, and others use the second (`monitor.sock`). A detached VM
 * has no owner: each process connects for the time of one call, under a lock.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { QmpClient } from '../../qmp/index.ts';
import { QmpConnectError, QmpProtocolError } from '../errors.ts';
import { events } from '../events.ts';
import type { WaitOptions } from './api.ts';
import { FileLock } from './file-lock.ts';
import type { VmPaths } from './vm-paths.ts';

/** Until QEMU has made its socket and answered, from its start: some 30 ms; minutes on a host that swaps. */
const START_TIMEOUT_MS = 60_000;
/** Between two tries to connect. */
const START_RETRY_MS = 5;
/** Most connections for one conversation, where an answer to somebody else comes first. */
const MAX_CONNECTS = 3;
/** One connection, greeting and answer of a QEMU that runs. */
const CONNECT_TIMEOUT_MS = 5_000;

/** Connects to a QEMU that was started a moment ago. The signal must tell when it dies. */
export async function connectToNewQemu(
  vmId: string,
  path: string,
  signal: AbortSignal,
): Promise<QmpClient> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await QmpClient.connect({
        path,
        signal,
        timeoutMs: START_TIMEOUT_MS,
        ...tracer(vmId),
      });
    } catch (error) {
      if (!(error instanceof QmpConnectError) || performance.now() >= deadline) throw error;
      await delay(START_RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** How this process reaches QEMU. */
export class QmpAccess {
  readonly #vmId: string;
  readonly #paths: VmPaths;
  readonly #way: { held: QmpClient } | 'locked' | 'monitor';

  constructor(vmId: string, paths: VmPaths, way: { held: QmpClient } | 'locked' | 'monitor') {
    this.#vmId = vmId;
    this.#paths = paths;
    this.#way = way;
  }

  /** The client that is held, for events. */
  get held(): QmpClient | undefined {
    return typeof this.#way === 'object' ? this.#way.held : undefined;
  }

  /** Gives a client for one conversation. @throws QmpConnectError, TimeoutError, and what `talk` throws */
  async use<T>(talk: (client: QmpClient) => Promise<T>, o: WaitOptions = {}): Promise<T> {
    if (typeof this.#way === 'object') return talk(this.#way.held);
    const timeoutMs = o.timeoutMs ?? CONNECT_TIMEOUT_MS;
    const locked = this.#way === 'locked';
    const operation = `QMP of VM ${this.#vmId}`;
    await using _lock = locked
      ? await FileLock.acquire(this.#paths.qmpLockPath, { signal: o.signal, timeoutMs, operation })
      : undefined;
    const path = locked ? this.#paths.qmpSocketPath : this.#paths.monitorSocketPath;
    await using client = await this.#connect({ path, signal: o.signal, timeoutMs });
    return await talk(client);
  }

  /**
   * What QEMU answers to a client that was cut off in the midst of a command (killed, aborted) goes to the
   * next one, before anything else: that one comes again.
   */
  async #connect(o: { path: string; signal: AbortSignal | undefined; timeoutMs: number }) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await QmpClient.connect({ ...o, ...tracer(this.#vmId) });
      } catch (error) {
        if (!(error instanceof QmpProtocolError) || attempt === MAX_CONNECTS) throw error;
        await delay(START_RETRY_MS, undefined, { signal: o.signal });
      }
    }
  }

  async close(): Promise<void> {
    if (typeof this.#way === 'object') await this.#way.held.close();
  }
}

function tracer(vmId: string): { onLine?: (direction: 'in' | 'out', line: string) => void } {
  if (!events.traces('qmp')) return {};
  return {
    onLine: (direction, line) => {
      events.emit('trace.qmp', { vmId, direction, line });
    },
  };
}
