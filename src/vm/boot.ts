/** From a launched QEMU to a guest whose agent answers; and back, where that fails. */
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { GuestError, QmpError, TimeoutError } from '../errors.ts';
import type { GuestSession } from '../guest/index.ts';
import type { BootFiles } from '../image/index.ts';
import { openImage } from '../image/manifest.ts';
import { eitherSignal } from './abort.ts';
import type { StatePaths, WaitOptions } from './api.ts';
import { openImageStore } from './image-store.ts';
import type { OpenOptions } from './guest-link.ts';
import type { LiveVm } from './live-vm.ts';
import { logsOf } from './logs.ts';
import { printable } from './guest-panic.ts';
import type { VmConfig } from './record.ts';
import type { VmPaths } from './vm-paths.ts';

/** A connection to the agent breaks some ms before its cause (QEMU's end, a panic) is known. */
const CAUSE_MS = 500;
/** Default of {@link openSession}. */
const SESSION_MS = 30_000;
/** Lines of the console that a timeout shows. */
const CONSOLE_LINES = 12;
const CONSOLE_BYTES = 4 * 1024;

/** Kernel and initramfs of the very image that a VM's disk stands on. @throws ImageError it is gone */
export async function bootFilesOf(
  paths: StatePaths,
  config: VmConfig,
  signal: AbortSignal | undefined,
): Promise<BootFiles> {
  const image = await openImage(config.image, dirname(config.rootfsPath));
  return openImageStore(paths).bootFiles(image, { signal });
}

/** What {@link awaitReady} needs to know. */
export interface ReadyOptions {
  id: string;
  paths: VmPaths;
  timeoutMs: number;
  signal?: AbortSignal | undefined;
  /** Of a copy: what its agent is asked for first. */
  renew?: OpenOptions['renew'];
}

/**
 * Waits until the agent answers.
 * @throws VmDiedError, GuestPanicError, HostError what ended the VM meanwhile
 * @throws TimeoutError with the console's last lines as its hint
 */
export async function awaitReady(live: LiveVm, { renew, ...o }: ReadyOptions): Promise<void> {
  const { fault } = live.watch;
  const signal = eitherSignal(fault, o.signal);
  try {
    await live.link.open({ timeoutMs: Math.max(1, o.timeoutMs), signal, booting: true, renew });
  } catch (error) {
    if (o.signal?.aborted) throw o.signal.reason;
    const cause = await explainFailure(live, error);
    if (!(cause instanceof TimeoutError)) throw cause;
    const text = printable(
      await logsOf(o.paths)
        .consoleLog.recent(CONSOLE_BYTES)
        .catch(() => ''),
    );
    const lines = text.trim().split('\n').slice(-CONSOLE_LINES).join('\n');
    throw new TimeoutError(`guest agent of VM ${o.id}`, cause.timeoutMs, {
      vmId: o.id,
      cause,
      hint:
        lines === ''
          ? 'The guest printed nothing: allow more time (--timeout), or try the other machine type.'
          : `Allow more time if the guest was still booting. Its console's last lines:\n${lines}`,
    });
  }
}

/** The session with a guest that is up. See `GuestAccess.guest`. */
export async function openSession(live: LiveVm, o: WaitOptions): Promise<GuestSession> {
  const { fault } = live.watch;
  const signal = eitherSignal(fault, o.signal);
  try {
    return await live.link.open({ signal, timeoutMs: o.timeoutMs ?? SESSION_MS });
  } catch (error) {
    if (o.signal?.aborted) throw o.signal.reason;
    throw await explainFailure(live, error);
  }
}

/** Why a call failed: the fault of its VM where there is one now or in a moment, else the error. */
export async function explainFailure(live: LiveVm, error: unknown): Promise<unknown> {
  const { fault } = live.watch;
  const maybe = error instanceof GuestError || error instanceof QmpError;
  if (maybe && !fault.aborted && !(error instanceof TimeoutError)) {
    await delay(CAUSE_MS, undefined, { signal: fault }).catch(() => undefined);
  }
  return fault.aborted ? fault.reason : error;
}
