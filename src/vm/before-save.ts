/** What a guest is asked for before its state is saved. */
import type { QmpClient } from '../../qmp/index.ts';
import { eitherSignal, lateSignal } from './abort.ts';
import { freshEntropy } from './entropy.ts';
import type { LiveVm } from './live-vm.ts';
import { firstCommand, hangUp } from './template/rehearse.ts';
import type { WaitOptions } from './wait-options.ts';

/** Of whom. */
interface Rehearsal {
  readonly vmId: string;
  readonly live: LiveVm;
  readonly client: QmpClient;
}

/** Most that each of the two may take: of a guest that writes all the time, what is left stays in its memory. */
const TIMEOUT_MS = 5_000;

/**
 * Has a guest under emulation do once what each restore begins with, and each flush to its disk what it has written:
 * memory and disk fit each other without, but `diff` sees disks only. A guest that does not answer in time, or not
 * at all, goes on as it is.
 */
export async function prepareToBeSaved(
  { vmId, live, client }: Rehearsal,
  { signal: given, timeoutMs: wanted }: WaitOptions,
): Promise<void> {
  const timeoutMs = Math.min(wanted ?? TIMEOUT_MS, TIMEOUT_MS);
  const bounds = () => ({
    timeoutMs,
    signal: eitherSignal(live.watch.fault, lateSignal(timeoutMs), given),
  });
  if (live.run.accel === 'tcg') {
    await rehearse({ vmId, live, client }, bounds()).catch(() => undefined); // its channels are taken, say
  }
  const o = bounds();
  try {
    const session = await live.link.open(o);
    await session.sync(o);
  } catch {
    given?.throwIfAborted();
  }
}

/**
 * From an agent that waits for its host to the end of a command, beside the session that there is. What the agent
 * loads and compiles for it is in the memory that is saved then, and does not have to be had at each restore by
 * code that an emulated processor translates first: 0.2 s of 0.8. One round does; more bring nothing.
 */
async function rehearse({ vmId, live, client }: Rehearsal, o: WaitOptions): Promise<void> {
  const link = live.anotherLink();
  try {
    link.wakeWith(() => ({ entropy: freshEntropy(), unixMs: Date.now() }));
    const session = await link.open(o);
    await firstCommand(session, vmId, o);
    await hangUp(link, client, o);
  } finally {
    await link.close();
  }
}
