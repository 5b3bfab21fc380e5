/** The host's processor, as far as a guest sees it. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Accel } from '../api.ts';

/** Hex digits of the features' hash: it is compared, never looked up. */
const HASH_DIGITS = 12;

/**
 * Model and features under KVM, where the guest's processor is the host's. Undefined under TCG: there
 * it is QEMU's own, the same on every host.
 */
export async function hostCpu(accel: Accel): Promise<string | undefined> {
  return accel === 'kvm' ? describeCpu(await readFile('/proc/cpuinfo', 'utf8')) : undefined;
}

/** See {@link hostCpu}. Pure. */
export function describeCpu(cpuinfo: string): string {
  const field = (name: string) =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(cpuinfo)?.[1] ?? '';
  const features = createHash('sha256').update(field('flags')).digest('hex').slice(0, HASH_DIGITS);
  return `${field('model name')}, features ${features}`;
}
