/**
 * Watches over one life of a QEMU, and ends every waiting call at once when it can serve none any
 * more: QEMU gone, the guest's kernel panicked, the host's disk full or the VM's quota reached.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { DiskQuotaError, GuestPanicError, HostError, VmDiedError } from '../errors.ts';
import { events } from '../events.ts';
import { allowManyListeners } from './abort.ts';
import type { BoundedLog } from './bounded-log.ts';
import { reachedQuota, type DiskBounds } from './disk-quota.ts';
import {
  extractPanic,
  isWholePanic,
  PanicDetector,
  panicSummary,
  printable,
} from './guest-panic.ts';
import type { ProcessExit, QemuProcess } from './launcher.ts';

/** Why a life of QEMU ended. */
export type EndReason = 'shutdown' | 'killed' | 'suspended' | 'guest' | 'died' | 'panic';
/** Why one ends where somebody here, or elsewhere, wants it to. */
export type WantedEnd = Extract<EndReason, 'shutdown' | 'killed' | 'suspended'>;

/** The end of a life of QEMU. */
export interface VmEnd {
  readonly reason: EndReason;
  readonly exit: ProcessExit;
  /** What pending calls were told. */
  readonly error: VmDiedError;
}

/** A kernel prints its panic line by line, and may never come to the end of it: so long is waited for it ... */
const PANIC_TEXT_MS = 5_000;
/** ... and so long for another line. A line takes some 100 ms where KVM's processor is itself emulated. */
const PANIC_QUIET_MS = 500;
/** Text that errors carry of console and stderr. */
const ERROR_TAIL_BYTES = 8 * 1024;

/** What is watched. */
export interface WatchTarget {
  readonly vmId: string;
  readonly process: QemuProcess;
  readonly consoleLog: BoundedLog;
  readonly qemuLog: BoundedLog;
  readonly disk: DiskBounds;
  /** Where others may end it: what whoever did so wrote down about that. */
  readonly notedEnd?: (() => Promise<WantedEnd | undefined>) | undefined;
}

/** One life of QEMU, from its start (or our coming to it) to its end. */
export class VmWatch {
  readonly #target: WatchTarget;
  #disk: DiskBounds;
  #fault = newFault();
  readonly #over = new AbortController();
  #expected: WantedEnd | undefined;
  #panic: GuestPanicError | undefined;
  /** Resolves once QEMU is gone, with all that is known; never rejects. Not after {@link release}. */
  readonly ended: Promise<VmEnd>;

  constructor(target: WatchTarget) {
    this.#target = target;
    this.#disk = target.disk;
    this.ended = target.process.exited.then((exit) => this.#onExit(exit));
    void this.#readConsole();
  }

  /** Aborted when no call can be served; see {@link GuestAccess.fault}. */
  get fault(): AbortSignal {
    return this.#fault.signal;
  }

  /** QEMU's end is wanted from here on. */
  expectEnd(reason: WantedEnd): void {
    this.#expected ??= reason;
  }

  /** Ends all waiting calls with this error. The first one counts. */
  raise(error: Error): void {
    if (!this.#fault.signal.aborted) this.#fault.abort(error);
  }

  /** Why the guest waits for space on its disk, where it does: the one fault that can be mended. */
  get outOfSpace(): Error | undefined {
    const reason: unknown = this.#fault.signal.reason;
    return reason instanceof HostError || reason instanceof DiskQuotaError ? reason : undefined;
  }

  /** The vCPUs run again, so there is space on the disk now. */
  renew(): void {
    if (this.outOfSpace !== undefined && !this.#over.signal.aborted) this.#fault = newFault();
  }

  /** Its disk may take more from here on. */
  raisedQuota(quotaBytes: number): void {
    this.#disk = { ...this.#disk, quotaBytes };
  }

  /** There is no space for what the guest wrote: QEMU stopped the vCPUs, nothing is lost yet. */
  raiseNoSpace(): void {
    const { vmId } = this.#target;
    const quota = reachedQuota(this.#disk);
    this.raise(
      quota ??
        new HostError('ERR_HOST_DISK_FULL', `VM ${vmId} is paused: the host's disk is full`, {
          vmId,
          hint: `Free space where the VM's disk is, then \`qmp-agent resume ${vmId}\`; or remove the VM.`,
        }),
    );
  }

  /** QEMU or the console says that the guest's kernel panicked. */
  async raisePanic(): Promise<void> {
    if (this.#panic !== undefined || this.#over.signal.aborted) return;
    const deadline = performance.now() + PANIC_TEXT_MS;
    let { consoleText } = await this.#tails();
    while (!isWholePanic(consoleText) && performance.now() < deadline) {
      const before = consoleText;
      await Promise.race([
        delay(PANIC_QUIET_MS, undefined, { ref: false }),
        this.#target.process.exited,
      ]);
      ({ consoleText } = await this.#tails());
      if (consoleText === before) break;
    }
    this.#raisePanicWith(
      extractPanic(consoleText) ?? 'Kernel panic (no text on the console)',
      consoleText,
      '',
    );
  }

  /** Ends the watch; QEMU runs on. */
  release(): void {
    this.#over.abort();
    this.#target.process.release();
  }

  async #readConsole(): Promise<void> {
    const detector = new PanicDetector();
    const { consoleLog } = this.#target;
    try {
      for await (const piece of consoleLog.follow({ signal: this.#over.signal })) {
        if (detector.push(piece)) void this.raisePanic();
        await consoleLog.rotate();
      }
    } catch (error) {
      if (this.#over.signal.aborted) return;
      events.emit('host.warning', {
        vmId: this.#target.vmId,
        code: 'console.unreadable',
        message: `the console log cannot be read: ${(error as Error).message}`,
      });
    }
  }

  async #onExit(exit: ProcessExit): Promise<VmEnd> {
    const [{ consoleText, stderr }, noted] = await Promise.all([
      this.#tails(),
      this.#target.notedEnd?.().catch(() => undefined),
    ]);
    const panic = extractPanic(consoleText);
    if (panic !== undefined) this.#raisePanicWith(panic, consoleText, stderr);
    this.#over.abort();
    const end = this.#panic
      ? { reason: 'panic' as const, exit, error: this.#panic }
      : this.#describe(this.#expected ?? noted ?? reasonOf(exit), { exit, consoleText, stderr });
    if (end.reason === 'died') {
      events.emit('fault.qemu-died', {
        vmId: this.#target.vmId,
        ...exit,
        stderr: end.error.stderr,
      });
    }
    this.raise(end.error);
    return end;
  }

  #describe(
    reason: Exclude<EndReason, 'panic'>,
    o: { exit: ProcessExit; consoleText: string; stderr: string },
  ): VmEnd {
    const { vmId } = this.#target;
    const { exit, consoleText, stderr } = o;
    const texts = {
      shutdown: 'was shut down',
      killed: 'was killed',
      suspended: 'was suspended',
      guest: 'has powered itself off',
      died: `is gone: QEMU ${describeExit(exit)}`,
    };
    const last = lastLine(stderr);
    const message = `VM ${vmId} ${texts[reason]}${reason === 'died' && last !== '' ? `: ${last}` : ''}`;
    const hints: Partial<Record<EndReason, string>> = {
      died: `See QEMU's own words in the error's \`stderr\`; \`dmesg\` tells whether the kernel killed it for want of memory.`,
      suspended: `Let it go on where it was: \`qmp-agent resume ${vmId}\`.`,
    };
    const again = `Start it again (\`qmp-agent start ${vmId}\`) where it is persistent; else make another.`;
    const hint = hints[reason] ?? again;
    return {
      reason,
      exit,
      error: new VmDiedError(message, { vmId, stderr, console: consoleText, hint }),
    };
  }

  #raisePanicWith(panic: string, consoleText: string, stderr: string): void {
    if (this.#panic !== undefined) return;
    const { vmId } = this.#target;
    this.#panic = new GuestPanicError(`the guest's kernel panicked: ${panicSummary(panic)}`, {
      vmId,
      panic,
      stderr,
      console: consoleText,
      hint: `Read the console (\`qmp-agent logs ${vmId}\`, or the error's \`console\`); more memory or another image often helps.`,
    });
    events.emit('fault.guest-panic', { vmId, panic });
    this.raise(this.#panic);
  }

  async #tails(): Promise<{ consoleText: string; stderr: string }> {
    const [consoleText, stderr] = await Promise.all([
      this.#target.consoleLog.recent(ERROR_TAIL_BYTES).catch(() => ''),
      this.#target.qemuLog.recent(ERROR_TAIL_BYTES).catch(() => ''),
    ]);
    return { consoleText: printable(consoleText), stderr: printable(stderr) };
  }
}

function newFault(): AbortController {
  const controller = new AbortController();
  allowManyListeners(controller.signal);
  return controller;
}

function reasonOf(exit: ProcessExit): 'guest' | 'died' {
  return exit.exitCode === 0 ? 'guest' : 'died';
}

function describeExit(exit: ProcessExit): string {
  if (exit.signal !== undefined) return `was ended by ${exit.signal}`;
  if (exit.exitCode !== undefined) return `exited with code ${exit.exitCode}`;
  return 'ended';
}

/** QEMU says so of each VM that is isolated. */
const NO_PEER = /warning: nic \S+ has no peer$/;

/** The last line that says something. */
export function lastLine(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.findLast((line) => line !== '' && !NO_PEER.test(line)) ?? '';
}
