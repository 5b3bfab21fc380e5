/**
 * The rate of the host's time stamp counter. Under TCG a guest reads that very counter, and on microvm
 * it has no timer against which it could find the rate out: the kernel then waits for a tick for ever.
 */
import { readFile } from 'node:fs/promises';

/** What cpufreq says of a processor; on Intel the rate of its counter, in kHz. */
const BASE_FREQUENCY = '/sys/devices/system/cpu/cpu0/cpufreq/base_frequency';

let read: Promise<number | undefined> | undefined;

/** kHz, as near as the host says; undefined where it says nothing. Read once a process. */
export function hostTscKhz(): Promise<number | undefined> {
  read ??= (async () => {
    const [base, cpuinfo] = await Promise.all([
      readFile(BASE_FREQUENCY, 'utf8').catch(() => ''),
      readFile('/proc/cpuinfo', 'utf8').catch(() => ''),
    ]);
    return tscKhz(base, cpuinfo);
  })();
  return read;
}

/** See {@link hostTscKhz}. Pure. */
export function tscKhz(baseFrequency: string, cpuinfo: string): number | undefined {
  const base = Number(baseFrequency.trim());
  if (base > 0) return base;
  // Without cpufreq, as in a virtual machine, this is the counter's rate (Linux, arch/x86, cpu/proc.c).
  const mhz = /^cpu MHz\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1];
  return mhz === undefined ? undefined : Math.round(Number(mhz) * 1000);
}
