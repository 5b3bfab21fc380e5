/**
 * Whether what was saved of a machine fits this host: the devices' state of one QEMU, or processor,
 * means nothing to another.
 */
import type { Accel } from '../api.ts';
import { findQemu } from '../launcher.ts';
import { guestCpu } from './guest-cpu.ts';

/** What a machine was saved with. */
export interface MadeWith {
  readonly qemuVersion: string;
  /** The guest's processor. */
  readonly cpu?: string | undefined;
}

/** What there is here. */
export async function madeHere(o: { qemuPath: string; accel: Accel }): Promise<MadeWith> {
  const [{ version }, cpu] = await Promise.all([findQemu(o.qemuPath), guestCpu(o.accel)]);
  return { qemuVersion: version, cpu };
}

/** What is another here, in words that follow `with`; undefined where it fits. Pure. */
export function differenceOf(made: MadeWith, here: MadeWith): string | undefined {
  if (made.qemuVersion !== here.qemuVersion)
    return `QEMU ${made.qemuVersion}, and this is QEMU ${here.qemuVersion}`;
  if (made.cpu !== here.cpu)
    return `the processor ${made.cpu ?? '?'}, and this is ${here.cpu ?? '?'}`;
  return undefined;
}
