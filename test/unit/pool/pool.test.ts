/** A pool over VMs that are none: its decisions, at the speed of a fake clock. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { events, type SystemEvent } from '../../../src/events.ts';
import { VmPool } from '../../../src/pool/pool.ts';
import { MemoryLedger } from '../../../src/pool/memory.ts';
import type { PoolSizeOptions, VmLease } from '../../../src/pool/types.ts';
import type { WaitOptions } from '../../../src/vm/index.ts';
import { FakeSource, type FakeVm } from './fake-vm.ts';

let source: FakeSource;
let pool: VmPool;
let seen: SystemEvent[];
let unsubscribe: () => void;

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );
const reasons = () => seen.flatMap((e) => (e.type === 'pool.vm-removed' ? [e.reason] : []));
const types = () => seen.map(({ type }) => type);

async function open(o: PoolSizeOptions & WaitOptions & { resets?: boolean } = {}): Promise<VmPool> {
  const { resets = true, ...options } = o;
  const memory = new MemoryLedger(() => Promise.resolve(1_000));
  const opening = VmPool.over(source.asSource({ resets }), { name: 'fakes', ...options }, memory);
  opening.catch(() => undefined);
  await pass(source.createMs * Math.max(1, options.minSize ?? 1));
  pool = await opening;
  return pool;
}

const acquire = async (count: number): Promise<VmLease[]> => {
  const leases = Promise.all(Array.from({ length: count }, () => pool.acquire()));
  await pass(20_000);
  return leases;
};

beforeEach(() => {
  vi.useFakeTimers();
  source = new FakeSource();
  seen = [];
  unsubscribe = events.subscribe((event) => seen.push(event));
});

afterEach(async () => {
  const closing = pool.close();
  await pass(0);
  await closing;
  expect(source.alive).toEqual([]);
  expect(source.vms.filter(({ closed }) => closed !== 1)).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
  unsubscribe();
  vi.useRealTimers();
});

describe('acquire', () => {
  it('takes a VM that is ready without waiting for anything', async () => {
    await open();
    const leased = vi.fn();
    void pool.acquire().then(leased);
    for (let i = 0; i < 5; i += 1) await Promise.resolve();
    expect(leased).toHaveBeenCalledOnce();
    expect(pool.stats()).toMatchObject({ size: 1, idle: 0, leased: 1, hits: 1, misses: 0 });
    expect(pool.stats().acquireMs).toEqual({ p50: 0, p95: 0, p99: 0 });
  });

  it('serves first those who came first, who came in between too', async () => {
    await open({ maxSize: 1 });
    const first = await pool.acquire();
    const order: number[] = [];
    const line = [1, 2, 3].map((n) =>
      pool.acquire().then((lease) => {
        order.push(n);
        return lease;
      }),
    );
    await first.release();
    await pass(source.resetMs);
    expect(order).toEqual([1]);
    void pool.acquire().then((lease) => {
      order.push(4);
      return lease.release();
    });
    for (const next of line) {
      await (await next).release();
      await pass(source.resetMs);
    }
    expect(order).toEqual([1, 2, 3, 4]);
    expect(pool.stats()).toMatchObject({ waiting: 0, misses: 4 });
  });

  it('gives up in time, or when it is told to', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    const late = failureOf(pool.acquire({ timeoutMs: 500 }));
    const abort = new AbortController();
    const aborted = failureOf(pool.acquire({ signal: abort.signal }));
    abort.abort('enough');
    expect(await aborted).toBe('enough');
    expect(await failureOf(pool.acquire({ signal: abort.signal }))).toBe('enough');
    await pass(500);
    expect(await late).toMatchObject({
      code: 'ERR_POOL_TIMEOUT',
      pool: 'fakes',
      timeoutMs: 500,
      cause: undefined,
      message: expect.stringContaining('1 VMs, 1 leased'),
      hint: expect.stringContaining('maxSize (now 1)'),
    });
    expect(pool.stats()).toMatchObject({ waiting: 0, timeouts: 1 });
    await lease.release();
    await pass(source.resetMs);
    expect(pool.stats()).toMatchObject({ idle: 1 });
  });
});

describe('release', () => {
  it('waits for nothing; the next user gets the VM when it is as new', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    await lease.release();
    await lease.release();
    await lease.destroy();
    expect(pool.stats()).toMatchObject({ resetting: 1, idle: 0 });
    const next = pool.acquire();
    await pass(source.resetMs);
    expect((await next).vm.id).toBe(source.vms[0]?.id);
    expect(pool.stats()).toMatchObject({ resets: 1, made: 1, removed: 0 });
  });

  it('throws a VM away that is used once, and makes another', async () => {
    await open({ resets: false, maxSize: 1 });
    await (await pool.acquire()).release();
    await pass(source.createMs);
    const [next] = await acquire(1);
    expect(next?.vm.id).toBe('vm1');
    expect(reasons()).toEqual(['used']);
  });

  it('throws a VM away whose reset fails', async () => {
    await open({ maxSize: 1 });
    source.resetError = new Error('no such snapshot');
    await (await pool.acquire()).release();
    await pass(source.resetMs + source.createMs);
    expect(reasons()).toEqual(['reset-failed']);
    expect(pool.stats()).toMatchObject({ idle: 1, failures: 1, resets: 0 });
    expect((await pool.acquire()).vm.id).toBe('vm1');
  });

  it('throws a VM away in which a call is under way, or a hand was kept', async () => {
    await open({ minSize: 3, maxSize: 3 });
    const [pending, keeps, clean] = await acquire(3);
    const paused = pending!.vm.pause();
    await keeps!.vm.console();
    await clean!.vm.snapshots.list();
    for (const lease of [pending, keeps, clean]) await lease!.release();
    expect(reasons()).toEqual(['unclean', 'unclean']);
    await pass(source.createMs);
    expect(clean!.vm.id).toBe(source.vms.find((vm) => vm.closed === 0)?.id);
    for (const vm of source.vms) vm.onPause?.();
    await paused;
  });

  it('throws a VM away that was paused, and not resumed', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    source.vms[0]!.state = 'paused';
    await lease.release();
    expect(reasons()).toEqual(['unclean']);
  });

  it('takes the VM out of its user’s hands', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    const { vm } = lease;
    const { commands, snapshots } = vm;
    const { list } = snapshots;
    expect(await list()).toEqual(['vm0']);
    expect(vm.snapshots).toBe(snapshots);
    await lease.release();
    await pass(source.resetMs);
    const next = await pool.acquire();
    for (const call of [
      () => vm.info(),
      () => vm.guest(),
      () => list(),
      () => commands.run('true'),
      () => vm.console(),
    ]) {
      expect(await failureOf((async () => call())())).toMatchObject({
        code: 'ERR_POOL_LEASE',
        vmId: 'vm0',
        hint: expect.stringContaining('acquire another'),
      });
    }
    expect(vm.id).toBe(next.vm.id);
    expect(await next.vm.snapshots.list()).toEqual(['vm0']);
    await next.release();
    expect(reasons()).toEqual([]);
  });

  it('is what `await using` does', async () => {
    await open({ maxSize: 1 });
    {
      await using lease = await pool.acquire();
      expect(lease.vm.id).toBe('vm0');
    }
    expect(pool.stats()).toMatchObject({ leased: 0, resetting: 1 });
  });
});

describe('destroy', () => {
  it('waits until the VM is gone, and another one is made', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    await lease.destroy();
    expect(source.vms[0]?.closed).toBe(1);
    expect(reasons()).toEqual(['destroyed']);
    await pass(source.createMs);
    expect(pool.stats()).toMatchObject({ idle: 1, size: 1 });
  });
});

describe('a VM that dies', () => {
  it('is replaced at once when it is idle', async () => {
    await open({ maxSize: 1 });
    source.vms[0]!.die();
    expect(pool.stats().idle).toBe(0);
    await pass(source.createMs);
    expect(pool.stats()).toMatchObject({ idle: 1, failures: 1 });
    expect(reasons()).toEqual(['died']);
  });

  it('is replaced at once when it is leased, and makes room', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    const next = pool.acquire();
    source.vms[0]!.die();
    await pass(source.createMs);
    expect((await next).vm.id).toBe('vm1');
    await lease.release();
    expect(reasons()).toEqual(['died']);
    expect(pool.stats()).toMatchObject({ size: 1, leased: 1 });
  });

  it('is not lent when it dies while it is reset', async () => {
    await open({ maxSize: 1 });
    await (await pool.acquire()).release();
    source.vms[0]!.die();
    await pass(source.resetMs + source.createMs);
    expect((await pool.acquire()).vm.id).toBe('vm1');
    expect(pool.stats().resets).toBe(0);
  });

  it('is not lent when it is found not to run', async () => {
    await open({ minSize: 2, maxSize: 2 });
    (source.vms[1] as FakeVm).state = 'paused';
    const lease = await pool.acquire();
    expect(lease.vm.id).toBe('vm0');
    expect(reasons()).toEqual(['unclean']);
  });
});

describe('health', () => {
  it('is asked of idle VMs, and the sick are replaced', async () => {
    await open({ minSize: 2, maxSize: 2, healthIntervalMs: 5_000 });
    source.vms[0]!.ping = () => Promise.reject(new Error('no answer'));
    await pass(5_000);
    expect(reasons()).toEqual(['unhealthy']);
    await pass(source.createMs);
    expect(source.alive.map(({ id }) => id)).toEqual(['vm1', 'vm2']);
  });

  it('says nothing about a VM that was lent meanwhile', async () => {
    await open({ maxSize: 1, healthIntervalMs: 5_000 });
    let fail: (() => void) | undefined;
    source.vms[0]!.ping = () =>
      new Promise((_resolve, reject) => (fail = () => reject(new Error('restored'))));
    await pass(5_000);
    const lease = await pool.acquire();
    await lease.release();
    await pass(source.resetMs);
    fail?.();
    await pass(0);
    expect(reasons()).toEqual([]);
    expect(pool.stats()).toMatchObject({ idle: 1 });
  });
});

describe('size', () => {
  it('follows a burst and shrinks when it is over', async () => {
    await open({ minSize: 1, maxSize: 20, idleTimeoutMs: 60_000 });
    const leases = await acquire(5);
    await pass(10_000);
    expect(pool.stats()).toMatchObject({ leased: 5, idle: 5 });
    for (const lease of leases) await lease.release();
    await pass(30_000);
    expect(pool.stats().idle).toBeGreaterThanOrEqual(5);
    const again = await Promise.all([1, 2, 3, 4, 5].map(() => pool.acquire()));
    expect(pool.stats()).toMatchObject({ misses: 4, hits: 6 });
    for (const lease of again) await lease.release();
    await pass(200_000);
    expect(pool.stats()).toMatchObject({ size: 1, idle: 1 });
    expect(new Set(reasons())).toEqual(new Set(['surplus']));
  });

  it('never goes beyond maxSize', async () => {
    await open({ minSize: 0, maxSize: 3 });
    const waits = Array.from({ length: 10 }, () => pool.acquire());
    for (const wait of waits) wait.catch(() => undefined);
    for (let i = 0; i < 10; i += 1) {
      await pass(1_000);
      const { size, making } = pool.stats();
      expect(size + making).toBeLessThanOrEqual(3);
    }
    expect(pool.stats()).toMatchObject({ size: 3, leased: 3, waiting: 7 });
  });

  it('keeps one ready as long as somebody has one', async () => {
    await open({ minSize: 1, maxSize: 4, idleTimeoutMs: 1_000 });
    const lease = await pool.acquire();
    await pass(60_000);
    expect(pool.stats()).toMatchObject({ leased: 1, idle: 1 });
    await lease.release();
    await pass(60_000);
    expect(pool.stats()).toMatchObject({ size: 1, idle: 1 });
  });

  it('has VMs that grow old replaced ahead, one by one', async () => {
    await open({ minSize: 2, maxSize: 4, maxAgeMs: 100_000 });
    for (let i = 0; i < 300; i += 1) {
      await pass(1_000);
      expect(pool.stats().idle, `after ${i} s`).toBeGreaterThanOrEqual(2);
    }
    expect(source.vms.length).toBeGreaterThanOrEqual(6);
    expect(source.vms.length).toBeLessThanOrEqual(10);
    expect(pool.stats().size).toBeLessThanOrEqual(3);
  });

  it('does not reset a VM that has grown old in use', async () => {
    await open({ maxSize: 1, maxAgeMs: 10_000 });
    const lease = await pool.acquire();
    await pass(11_000);
    await lease.release();
    expect(reasons()).toEqual(['expired']);
  });
});

describe('a source that fails', () => {
  it('is reported, tried ever less often, and told of to those who wait', async () => {
    await open({ minSize: 1, maxSize: 4 });
    await pool.acquire();
    source.createError = new Error('the image is gone');
    source.createMs = 10;
    const before = source.attempts;
    const late = failureOf(pool.acquire({ timeoutMs: 600_000 }));
    await pass(600_000);
    expect(await late).toMatchObject({
      code: 'ERR_POOL_TIMEOUT',
      cause: source.createError,
      message: expect.stringContaining('no VM can be made: the image is gone'),
    });
    const attempts = source.attempts - before;
    expect(attempts).toBeGreaterThan(12);
    expect(attempts).toBeLessThan(24); // 0.5 s, 1 s, 2 s … 60 s, each up to a quarter less
    const failures = seen.flatMap((e) => (e.type === 'pool.source-failed' ? [e] : []));
    expect(failures.at(-1)).toMatchObject({ failures: attempts, error: 'the image is gone' });
    expect(failures.at(-1)?.retryMs).toBeGreaterThanOrEqual(45_000);

    source.createError = undefined;
    const next = pool.acquire();
    await pass(61_000);
    await next;
    expect(types()).toContain('pool.source-recovered');
    expect(await failureOf(pool.acquire({ timeoutMs: 10_000 }).then((l) => l.release()))).toBe(
      undefined,
    );
  });

  it('ends the making of the pool, with nothing left', async () => {
    await open({ minSize: 0 });
    await pool.close();
    source.createError = new Error('no image');
    expect(await failureOf(open({ minSize: 2 }))).toBe(source.createError);
    expect(types().filter((type) => type === 'pool.closed')).toHaveLength(2);
  });
});

describe('making a pool', () => {
  it('is refused where the host has no memory for it', async () => {
    await open({ minSize: 0 });
    const tooMuch = VmPool.over(
      { ...source.asSource(), bytesPerVm: 10 },
      { maxSize: 3 },
      new MemoryLedger(() => Promise.resolve(29)),
    );
    expect(await failureOf(tooMuch)).toMatchObject({ code: 'ERR_POOL_MEMORY', value: 3 });
    expect(source.attempts).toBe(0);
  });

  it('ends in time, or when it is told to', async () => {
    await open({ minSize: 0 });
    await pool.close();
    source.createMs = 1_000;
    const late = failureOf(VmPool.over(source.asSource(), { timeoutMs: 100 }));
    await pass(100);
    expect(await late).toMatchObject({ code: 'ERR_POOL_TIMEOUT', operation: 'create' });
    const abort = new AbortController();
    const aborted = failureOf(VmPool.over(source.asSource(), { signal: abort.signal }));
    await pass(10);
    abort.abort('enough');
    expect(await aborted).toBe('enough');
  });
});

describe('the end of a pool', () => {
  it('is waited for by drain until the last lease is over', async () => {
    await open({ minSize: 3, maxSize: 3 });
    const leases = await acquire(3);
    const waiting = pool.acquire();
    const drained = vi.fn();
    const draining = pool.drain();
    void draining.then(drained);
    expect(await failureOf(pool.acquire())).toMatchObject({
      code: 'ERR_POOL_CLOSED',
      message: 'pool fakes is draining',
    });
    await leases[0]!.release();
    await pass(source.resetMs);
    const last = await waiting;
    await leases[1]!.release();
    await leases[2]!.release();
    await pass(10_000);
    expect(pool.stats()).toMatchObject({ size: 1, leased: 1, making: 0 });
    expect(drained).not.toHaveBeenCalled();
    await last.release();
    await draining;
    expect(source.alive).toEqual([]);
    await pool.drain();
  });

  it('is not forced by a drain that takes too long', async () => {
    await open({ maxSize: 1 });
    const lease = await pool.acquire();
    const late = failureOf(pool.drain({ timeoutMs: 1_000 }));
    await pass(1_000);
    expect(await late).toMatchObject({ code: 'ERR_POOL_TIMEOUT', operation: 'drain' });
    expect(source.vms[0]?.closed).toBe(0);
    const drained = pool.drain();
    await lease.release();
    await drained;
  });

  it('is told to all who wait, and ends what is under way', async () => {
    await open({ minSize: 2, maxSize: 2 });
    const [first, second] = await acquire(2);
    const waiting = failureOf(pool.acquire());
    await first!.release(); // is being reset
    await second!.destroy(); // is being made anew
    await pass(0);
    expect(pool.stats()).toMatchObject({ resetting: 1, making: 1, waiting: 1 });
    const closing = pool.close();
    expect(pool.close()).toBe(closing);
    expect(await waiting).toMatchObject({ code: 'ERR_POOL_CLOSED' });
    await closing;
    expect(source.alive).toEqual([]);
    expect(await failureOf(pool.acquire())).toMatchObject({ message: 'pool fakes is closed' });
    expect(pool.stats()).toMatchObject({ size: 0, making: 0 });
    expect(types().filter((type) => type === 'pool.closed')).toHaveLength(1);
    await first!.release();
    await pool.drain();
  });

  it('takes leased VMs with it', async () => {
    await open();
    const lease = await pool.acquire();
    await pool.close();
    expect(source.vms[0]?.closed).toBe(1);
    await lease.release();
    await lease.destroy();
  });
});
