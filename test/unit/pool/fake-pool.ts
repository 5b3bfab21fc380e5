/** A pool over VMs that are none, at the speed of a fake clock. */
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { events, type PoolRemovalReason, type SystemEvent } from '../../../src/events.ts';
import { MemoryLedger } from '../../../src/pool/memory.ts';
import { VmPool } from '../../../src/pool/pool.ts';
import type { PoolSizeOptions, VmLease } from '../../../src/pool/types.ts';
import type { WaitOptions } from '../../../src/vm/index.ts';
import { FakeSource } from './fake-vm.ts';

/** A little longer: what is put off to the next turn of the event loop takes a fake millisecond. */
export const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms + 5);

/** What a promise rejects with; undefined where it resolves. */
export const failureOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

/** Of a host that has room for a thousand VMs. */
export const memory = () => new MemoryLedger(() => Promise.resolve(1_000));

/** One pool, closed after each test; whatever is left of it then is a failure. */
export class FakePool {
  source = new FakeSource();
  pool!: VmPool;
  seen: SystemEvent[] = [];

  /** Makes the pool; its first VMs are ready. */
  async open(o: PoolSizeOptions & WaitOptions & { resets?: boolean } = {}): Promise<VmPool> {
    const { resets = true, ...options } = o;
    const source = this.source.asSource({ resets });
    const opening = VmPool.over(source, { name: 'fakes', ...options }, memory());
    opening.catch(() => undefined);
    await pass(this.source.createMs * Math.max(1, options.minSize ?? 1));
    this.pool = await opening;
    return this.pool;
  }

  /** Takes so many VMs, which the pool may have to make. */
  async acquire(count: number): Promise<VmLease[]> {
    const leases = Promise.all(Array.from({ length: count }, () => this.pool.acquire()));
    await pass(20_000);
    return leases;
  }

  /** Why VMs have left the pool. */
  get removals(): PoolRemovalReason[] {
    return this.seen.flatMap((event) => (event.type === 'pool.vm-removed' ? [event.reason] : []));
  }

  /** How often that was announced. */
  count(type: SystemEvent['type']): number {
    return this.seen.filter((event) => event.type === type).length;
  }
}

/** A pool for each test of a file. */
export function useFakePool(): FakePool {
  const fakes = new FakePool();
  let unsubscribe: () => void;
  beforeEach(() => {
    vi.useFakeTimers();
    fakes.source = new FakeSource();
    fakes.seen = [];
    unsubscribe = events.subscribe((event) => fakes.seen.push(event));
  });
  afterEach(async () => {
    unsubscribe();
    const closing = fakes.pool.close();
    await pass(0);
    await closing;
    expect(fakes.source.vms.filter(({ closed }) => closed !== 1)).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });
  return fakes;
}
