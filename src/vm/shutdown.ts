/** Taking a VM down: the gentlest way first, each with its own deadline. */
import { setTimeout as delay } from 'node:timers/promises';
import { machineFacts, type MachineType } from '../../firmware/machine.ts';
import { VmDiedError } from '../errors.ts';
import { eitherSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmEnd } from './vm-watch.ts';

/** Default time for the guest to go down by itself. */
export const DEFAULT_GRACE_MS = 15_000;
/** Reaching the agent, or QEMU, for the request alone; part of the grace. */
const REQUEST_MS = 3_000;
/** Of the grace, the agent's share; the ACPI power button has the rest. */
const AGENT_SHARE = 2 / 3;
/** From QMP `quit`, which flushes the disk, to QEMU's end. */
const QUIT_MS = 5_000;
/** From SIGTERM to QEMU's end. */
const SIGTERM_MS = 2_000;
/** From SIGKILL to QEMU's end; longer only where it sits in the kernel, on a dead disk. */
const SIGKILL_MS = 10_000;

/** How far the guest is. */
export interface ShutdownOptions {
  /** For agent and power button together; 0: straight to `quit`. */
  readonly graceMs: number;
  readonly machine: MachineType;
  /** Its vCPUs run, so it can react. */
  readonly awake: boolean;
  /** Cuts the graces short: what is left are `quit`, SIGTERM, SIGKILL. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Takes the guest down and QEMU with it.
 * @throws VmDiedError QEMU survived SIGKILL
 */
export async function shutDown(live: LiveVm, o: ShutdownOptions): Promise<VmEnd> {
  live.watch.expectEnd('shutdown');
  const agentMs = o.graceMs * AGENT_SHARE;
  const steps: readonly (() => Promise<VmEnd | undefined>)[] = [
    ...(o.awake && agentMs > 0
      ? [
          () => step(live, agentMs, o.signal, () => askAgent(live, Math.min(REQUEST_MS, agentMs))),
          ...(machineFacts(o.machine).powerButton
            ? [() => step(live, o.graceMs - agentMs, o.signal, () => qmp(live, 'system_powerdown'))]
            : []),
        ]
      : []),
    () => step(live, QUIT_MS, undefined, () => qmp(live, 'quit')),
    () => step(live, SIGTERM_MS, undefined, () => void live.process.kill('SIGTERM')),
  ];
  for (const run of steps) {
    const end = await run();
    if (end !== undefined) return end;
  }
  return kill(live);
}

/** A paused guest cannot shut down. @returns whether its vCPUs run now */
export async function wakeUp(live: LiveVm, isPaused: boolean): Promise<boolean> {
  if (live.watch.fault.aborted) return false;
  if (!isPaused) return true;
  return live.qmp
    .use((client) => client.execute('cont'))
    .then(
      () => true,
      () => false,
    );
}

/** SIGKILL, and QEMU's end. @throws VmDiedError it survived that */
export async function kill(live: LiveVm): Promise<VmEnd> {
  live.watch.expectEnd('killed');
  live.process.kill('SIGKILL');
  const end = await within(live.watch.ended, SIGKILL_MS, undefined);
  if (end !== undefined) return end;
  throw new VmDiedError(`QEMU (pid ${live.process.identity.pid}) is still there after SIGKILL`, {
    hint: 'It waits in the kernel, most likely for a disk that does not answer: see `dmesg`.',
  });
}

/** Makes a request that may fail, and gives QEMU time to end because of it. */
async function step(
  live: LiveVm,
  timeoutMs: number,
  signal: AbortSignal | undefined,
  request: () => Promise<boolean> | void,
): Promise<VmEnd | undefined> {
  if (signal?.aborted) return undefined;
  const started = performance.now();
  const accepted = await request();
  if (accepted === false) return undefined; // nobody there who could do it: no use to wait
  return within(live.watch.ended, timeoutMs - (performance.now() - started), signal);
}

async function askAgent(live: LiveVm, timeoutMs: number): Promise<boolean> {
  try {
    const session = await live.link.open({ timeoutMs });
    await session.poweroff({ timeoutMs });
    return true;
  } catch {
    return false;
  }
}

async function qmp(live: LiveVm, command: 'system_powerdown' | 'quit'): Promise<boolean> {
  try {
    await live.qmp.use((client) => client.execute(command, {}, { timeoutMs: REQUEST_MS }), {
      timeoutMs: REQUEST_MS,
    });
    return true;
  } catch {
    return command === 'quit'; // it may be gone before it answers
  }
}

async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  const settled = new AbortController();
  const stop = eitherSignal(settled.signal, signal);
  const timer = delay(Math.max(0, timeoutMs), undefined, { signal: stop }).catch(() => undefined);
  try {
    return await Promise.race([promise, timer]);
  } finally {
    settled.abort();
  }
}
