/** Bringing a suspended VM's memory and devices back. */
import { events } from '../../events.ts';
import { step } from '../../steps.ts';
import { VmDiedError } from '../../errors.ts';
import type { WaitOptions } from '../api.ts';
import { killStrays } from '../gc.ts';
import { wrongState } from '../find-vm.ts';
import { LiveVm } from '../live-vm.ts';
import { givePlaceBack, NamesWait, takePlace } from '../network-of.ts';
import { isAlive } from '../process-identity.ts';
import { kill } from '../shutdown.ts';
import type { VmInside } from '../vm-inside.ts';
import { requireUsable, savedFiles } from './saved.ts';

async function diedTooSoon(id: string, live: LiveVm): Promise<VmDiedError> {
  const { error } = await live.watch.ended;
  const { stderr, console } = error;
  return new VmDiedError(`QEMU ended before VM ${id} went on; the VM is still suspended`, {
    ...{ vmId: id, stderr, console, cause: error },
    hint: `Try again: \`qmp-agent resume ${id}\`.`,
  });
}

/**
 * Starts QEMU on what was saved; its vCPUs stand still, and what execs have started does, too. Until the
 * record says so the VM is suspended, and stays so where anything fails. Afterwards what was saved is no
 * more than what QEMU's memory is mapped from, and never loaded again. Under the machine lock.
 * @throws SuspendError, HostError, LaunchError, StateDirError; the signal's reason
 */
export async function loadSuspended(vm: VmInside, o: WaitOptions): Promise<LiveVm> {
  const { signal } = o;
  const startedAt = performance.now();
  const { id, config, record } = vm;
  const { run: before, suspended } = record;
  if (before === undefined || suspended === undefined)
    throw wrongState(id, ['suspended'], vm.state);
  const files = savedFiles(vm.files.dir, suspended.name);
  step('resume', 'check', id);
  await requireUsable(record, { saved: suspended, run: before, files });
  await killStrays(id); // of a suspend or a resume whose process died
  step('resume', 'launch', id);
  const place = await takePlace(vm, signal);
  using names = new NamesWait(vm, place, o);
  const live = await LiveVm.launch({
    id,
    place: place?.at,
    paths: vm.files,
    config: { ...config, accel: before.accel },
    from: { ...files, busyChannels: suspended.busyChannels },
    hold: true,
    onStep: (name) => step('resume', name, id),
    signal,
    onSpawn: async (run) => {
      await vm.write({ state: 'suspended', suspended, run });
      await place?.whole; // as long as QEMU takes to answer
    },
  }).catch(async (error: unknown) => {
    await givePlaceBack(vm, place).catch(() => undefined); // gc will
    throw error;
  });
  try {
    signal?.throwIfAborted();
    step('resume', 'commit', id);
    // From a QEMU that is dead already nothing can go on; from what is saved it can.
    if (!isAlive(live.process.identity)) throw await diedTooSoon(id, live);
    await names.answered;
    await vm.write({ state: 'paused', run: { ...live.run, parked: true } });
  } catch (error) {
    await kill(live).catch(() => undefined);
    await live.release();
    await givePlaceBack(vm, place).catch(() => undefined); // gc will
    throw error;
  }
  events.emit('vm.loaded', { vmId: id, loadMs: Math.round(performance.now() - startedAt) });
  return live;
}
