/** The guest's wall clock after its vCPUs stood still. */
import { eitherSignal, lateSignal } from './abort.ts';
import type { LiveVm } from './live-vm.ts';

/** Most that setting it may take. */
const CLOCK_MS = 5_000;

/** Sets the guest's clock to the host's. A guest that does not answer goes on with its own time. */
export async function setClock(live: LiveVm): Promise<void> {
  const signal = eitherSignal(live.watch.fault, lateSignal(CLOCK_MS));
  try {
    const session = await live.link.open({ timeoutMs: CLOCK_MS, signal });
    await session.setClock(Date.now(), { timeoutMs: CLOCK_MS, signal });
  } catch {
    // whoever calls the guest next hears what is wrong with it
  }
}
