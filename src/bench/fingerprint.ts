import { cpus, loadavg, release, totalmem } from 'node:os';
import type { BenchFingerprint } from './report.ts';

/** What a bench knows about the VMs it measured. */
export type MeasuredOn = Pick<BenchFingerprint, 'qemu' | 'accel' | 'machine' | 'image' | 'channel'>;

/** Describes this host and the VMs measured on it; `startLoad` was read when the run began. */
export function takeFingerprint(on: MeasuredOn, startLoad: number): BenchFingerprint {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryMib: Math.round(totalmem() / 1024 / 1024),
    kernel: release(),
    ...on,
    node: process.version,
    load: { start: startLoad, end: currentLoad() },
  };
}

/** Load average over the last minute, two decimals. */
export function currentLoad(): number {
  return Math.round((loadavg()[0] ?? 0) * 100) / 100;
}
