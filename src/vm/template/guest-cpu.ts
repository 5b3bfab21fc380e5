/** The processor that a guest sees. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Accel } from '../api.ts';
import { TCG_CPU } from '../argv.ts';

/** Hex digits of the features' hash: it is compared, never looked up. */
const HASH_DIGITS = 12;

/**
 * Model and features: under KVM those of the host's processor, under TCG QEMU's own, the same on every
 * host.
 */
export async function guestCpu(accel: Accel): Promise<string> {
  return accel === 'kvm' ? describeCpu(await readFile('/proc/cpuinfo', 'utf8')) : TCG_CPU;
}

/** See {@link guestCpu}. Pure. */
export function describeCpu(cpuinfo: string): string {
  const field = (name: string) =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(cpuinfo)?.[1] ?? '';
  const features = createHash('sha256').update(field('flags')).digest('hex').slice(0, HASH_DIGITS);
  return `${field('model name')}, features ${features}`;
}
