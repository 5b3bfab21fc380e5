/** How a pool keeps its VMs. */
import { describe, expect, it } from 'vitest';
import { failureOf, pass, useFakePool } from './fake-pool.ts';

const fakes = useFakePool();

describe('a VM that dies', () => {
  it('is replaced at once when it is idle', async () => {
    await fakes.open({ maxSize: 1 });
    fakes.source.vms[0]!.die();
    expect(fakes.pool.stats().idle).toBe(0);
    await pass(fakes.source.createMs);
    expect(fakes.pool.stats()).toMatchObject({ idle: 1, failures: 1 });
    expect(fakes.removals).toEqual(['died']);
  });

  it('is replaced at once when it is leased, and makes room', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    const next = fakes.pool.acquire();
    fakes.source.vms[0]!.die();
    await pass(fakes.source.createMs);
    expect((await next).vm.id).toBe('vm1');
    await lease.release();
    expect(fakes.removals).toEqual(['died']);
    expect(fakes.pool.stats()).toMatchObject({ size: 1, leased: 1 });
  });

  it('is not lent when it dies while it is reset', async () => {
    await fakes.open({ maxSize: 1 });
    await (await fakes.pool.acquire()).release();
    fakes.source.vms[0]!.die();
    await pass(fakes.source.resetMs + fakes.source.createMs);
    expect((await fakes.pool.acquire()).vm.id).toBe('vm1');
    expect(fakes.pool.stats().resets).toBe(0);
  });

  it('is not lent when it is found not to run', async () => {
    await fakes.open({ minSize: 2, maxSize: 2 });
    fakes.source.vms[1]!.state = 'paused';
    const lease = await fakes.pool.acquire();
    expect(lease.vm.id).toBe('vm0');
    expect(fakes.removals).toEqual(['unclean']);
  });
});

describe('health', () => {
  it('is asked of idle VMs, and the sick are replaced', async () => {
    await fakes.open({ minSize: 2, maxSize: 2, healthIntervalMs: 5_000 });
    fakes.source.vms[0]!.ping = () => Promise.reject(new Error('no answer'));
    await pass(5_000);
    expect(fakes.removals).toEqual(['unhealthy']);
    await pass(fakes.source.createMs);
    expect(fakes.source.alive.map(({ id }) => id)).toEqual(['vm1', 'vm2']);
  });

  it('says nothing about a VM that was lent meanwhile', async () => {
    await fakes.open({ maxSize: 1, healthIntervalMs: 5_000 });
    let fail: (() => void) | undefined;
    fakes.source.vms[0]!.ping = () =>
      new Promise((_resolve, reject) => (fail = () => reject(new Error('restored'))));
    await pass(5_000);
    const lease = await fakes.pool.acquire();
    await lease.release();
    await pass(fakes.source.resetMs);
    fail?.();
    await pass(0);
    expect(fakes.removals).toEqual([]);
    expect(fakes.pool.stats()).toMatchObject({ idle: 1 });
  });
});

describe('size', () => {
  it('follows a burst and shrinks when it is over', async () => {
    await fakes.open({ minSize: 1, maxSize: 20, idleTimeoutMs: 60_000 });
    const leases = await fakes.acquire(5);
    await pass(10_000);
    expect(fakes.pool.stats()).toMatchObject({ leased: 5, idle: 5 });
    for (const lease of leases) await lease.release();
    await pass(30_000);
    expect(fakes.pool.stats().idle).toBeGreaterThanOrEqual(5);
    const again = await Promise.all([1, 2, 3, 4, 5].map(() => fakes.pool.acquire()));
    expect(fakes.pool.stats()).toMatchObject({ misses: 4, hits: 6 });
    for (const lease of again) await lease.release();
    await pass(200_000);
    expect(fakes.pool.stats()).toMatchObject({ size: 1, idle: 1 });
    expect(new Set(fakes.removals)).toEqual(new Set(['surplus']));
  });

  it('never goes beyond maxSize', async () => {
    await fakes.open({ minSize: 0, maxSize: 3 });
    const waits = Array.from({ length: 10 }, () => fakes.pool.acquire());
    for (const wait of waits) wait.catch(() => undefined);
    for (let i = 0; i < 10; i += 1) {
      await pass(1_000);
      const { size, making } = fakes.pool.stats();
      expect(size + making).toBeLessThanOrEqual(3);
    }
    expect(fakes.pool.stats()).toMatchObject({ size: 3, leased: 3, waiting: 7 });
  });

  it('keeps one ready as long as somebody has one', async () => {
    await fakes.open({ minSize: 1, maxSize: 4, idleTimeoutMs: 1_000 });
    const lease = await fakes.pool.acquire();
    await pass(60_000);
    expect(fakes.pool.stats()).toMatchObject({ leased: 1, idle: 1 });
    await lease.release();
    await pass(60_000);
    expect(fakes.pool.stats()).toMatchObject({ size: 1, idle: 1 });
  });

  it('has VMs that grow old replaced ahead, one by one', async () => {
    await fakes.open({ minSize: 2, maxSize: 4, maxAgeMs: 100_000 });
    for (let i = 0; i < 300; i += 1) {
      await pass(1_000);
      expect(fakes.pool.stats().idle, `after ${i} s`).toBeGreaterThanOrEqual(2);
    }
    expect(fakes.source.vms.length).toBeGreaterThanOrEqual(6);
    expect(fakes.source.vms.length).toBeLessThanOrEqual(10);
    expect(fakes.pool.stats().size).toBeLessThanOrEqual(3);
  });

  it('does not reset a VM that has grown old in use', async () => {
    await fakes.open({ maxSize: 1, maxAgeMs: 10_000 });
    const lease = await fakes.pool.acquire();
    await pass(11_000);
    await lease.release();
    expect(fakes.removals).toEqual(['expired']);
  });
});

describe('a source that fails', () => {
  it('is reported, tried ever less often, and told of to those who wait', async () => {
    await fakes.open({ minSize: 1, maxSize: 4 });
    await fakes.pool.acquire();
    fakes.source.createError = new Error('the image is gone');
    fakes.source.createMs = 10;
    const before = fakes.source.attempts;
    const late = failureOf(fakes.pool.acquire({ timeoutMs: 600_000 }));
    await pass(600_000);
    expect(await late).toMatchObject({
      code: 'ERR_POOL_TIMEOUT',
      cause: fakes.source.createError,
      message: expect.stringContaining('no VM can be made: the image is gone'),
    });
    const attempts = fakes.source.attempts - before;
    expect(attempts).toBeGreaterThan(12);
    expect(attempts).toBeLessThan(24); // 0.5 s, 1 s, 2 s … 60 s, each up to a quarter less
    const failures = fakes.seen.flatMap((e) => (e.type === 'pool.source-failed' ? [e] : []));
    expect(failures.at(-1)).toMatchObject({ failures: attempts, error: 'the image is gone' });
    expect(failures.at(-1)?.retryMs).toBeGreaterThanOrEqual(45_000);

    fakes.source.createError = undefined;
    const next = fakes.pool.acquire();
    await pass(61_000);
    await next;
    expect(fakes.count('pool.source-recovered')).toBe(1);
    expect(
      await failureOf(fakes.pool.acquire({ timeoutMs: 10_000 }).then((l) => l.release())),
    ).toBe(undefined);
  });

  it('ends the making of the pool, with nothing left', async () => {
    await fakes.open({ minSize: 0 });
    await fakes.pool.close();
    fakes.source.createError = new Error('no image');
    expect(await failureOf(fakes.open({ minSize: 2 }))).toBe(fakes.source.createError);
    expect(fakes.count('pool.closed')).toBe(2);
  });
});
