/** What users of a pool see of it. */
import { describe, expect, it, vi } from 'vitest';
import { MemoryLedger } from '../../../src/pool/memory.ts';
import { VmPool } from '../../../src/pool/pool.ts';
import { failureOf, memory, pass, useFakePool } from './fake-pool.ts';

const fakes = useFakePool();

describe('acquire', () => {
  it('takes a VM that is ready without waiting for anything', async () => {
    await fakes.open();
    const leased = vi.fn();
    void fakes.pool.acquire().then(leased);
    for (let i = 0; i < 5; i += 1) await Promise.resolve();
    expect(leased).toHaveBeenCalledOnce();
    expect(fakes.pool.stats()).toMatchObject({ size: 1, idle: 0, leased: 1, hits: 1, misses: 0 });
    expect(fakes.pool.stats().acquireMs).toEqual({ p50: 0, p95: 0, p99: 0 });
  });

  it('serves first those who came first, who came in between too', async () => {
    await fakes.open({ maxSize: 1 });
    const first = await fakes.pool.acquire();
    const order: number[] = [];
    const line = [1, 2, 3].map((n) =>
      fakes.pool.acquire().then((lease) => {
        order.push(n);
        return lease;
      }),
    );
    await first.release();
    await pass(fakes.source.resetMs);
    expect(order).toEqual([1]);
    void fakes.pool.acquire().then((lease) => {
      order.push(4);
      return lease.release();
    });
    for (const next of line) {
      await (await next).release();
      await pass(fakes.source.resetMs);
    }
    expect(order).toEqual([1, 2, 3, 4]);
    expect(fakes.pool.stats()).toMatchObject({ waiting: 0, misses: 4 });
  });

  it('gives up in time, or when it is told to', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    const late = failureOf(fakes.pool.acquire({ timeoutMs: 500 }));
    const abort = new AbortController();
    const aborted = failureOf(fakes.pool.acquire({ signal: abort.signal }));
    abort.abort('enough');
    expect(await aborted).toBe('enough');
    expect(await failureOf(fakes.pool.acquire({ signal: abort.signal }))).toBe('enough');
    await pass(500);
    expect(await late).toMatchObject({
      code: 'ERR_POOL_TIMEOUT',
      pool: 'fakes',
      timeoutMs: 500,
      message: expect.stringContaining('1 VMs, 1 leased'),
      hint: expect.stringContaining('maxSize (now 1)'),
    });
    expect(fakes.pool.stats()).toMatchObject({ waiting: 0, timeouts: 1 });
    await lease.release();
    await pass(fakes.source.resetMs);
    expect(fakes.pool.stats()).toMatchObject({ idle: 1 });
  });
});

describe('release', () => {
  it('waits for nothing; the next user gets the VM when it is as new', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    await lease.release();
    await lease.release();
    await lease.destroy();
    expect(fakes.pool.stats()).toMatchObject({ resetting: 1, idle: 0 });
    const next = fakes.pool.acquire();
    await pass(fakes.source.resetMs);
    expect((await next).vm.id).toBe(fakes.source.vms[0]?.id);
    expect(fakes.pool.stats()).toMatchObject({ resets: 1, made: 1, removed: 0 });
  });

  it('throws a VM away that is used once, and makes another', async () => {
    await fakes.open({ resets: false, maxSize: 1 });
    await (await fakes.pool.acquire()).release();
    await pass(fakes.source.createMs);
    const [next] = await fakes.acquire(1);
    expect(next?.vm.id).toBe('vm1');
    expect(fakes.removals).toEqual(['used']);
  });

  it('throws a VM away whose reset fails', async () => {
    await fakes.open({ maxSize: 1 });
    fakes.source.resetError = new Error('no such snapshot');
    await (await fakes.pool.acquire()).release();
    await pass(fakes.source.resetMs + fakes.source.createMs);
    expect(fakes.removals).toEqual(['reset-failed']);
    expect(fakes.pool.stats()).toMatchObject({ idle: 1, failures: 1, resets: 0 });
    expect((await fakes.pool.acquire()).vm.id).toBe('vm1');
  });

  it('throws a VM away in which a call is under way, or a hand was kept', async () => {
    await fakes.open({ minSize: 3, maxSize: 3 });
    const [pending, keeps, clean] = await fakes.acquire(3);
    const paused = pending!.vm.pause();
    await keeps!.vm.console();
    await clean!.vm.snapshots.list();
    for (const lease of [pending, keeps, clean]) await lease!.release();
    expect(fakes.removals).toEqual(['unclean', 'unclean']);
    await pass(fakes.source.createMs);
    expect(clean!.vm.id).toBe(fakes.source.vms.find((vm) => vm.closed === 0)?.id);
    for (const vm of fakes.source.vms) vm.onPause?.();
    await paused;
  });

  it('throws a VM away that was paused, and not resumed', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    fakes.source.vms[0]!.state = 'paused';
    await lease.release();
    expect(fakes.removals).toEqual(['unclean']);
  });

  it('takes the VM out of its user’s hands', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    const { vm } = lease;
    const { commands, snapshots } = vm;
    const list = () => snapshots.list();
    expect(await list()).toEqual(['vm0']);
    expect(vm.snapshots).toBe(snapshots);
    await lease.release();
    await pass(fakes.source.resetMs);
    const next = await fakes.pool.acquire();
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
    expect(fakes.removals).toEqual([]);
  });

  it('is what `await using` does', async () => {
    await fakes.open({ maxSize: 1 });
    {
      await using lease = await fakes.pool.acquire();
      expect(lease.vm.id).toBe('vm0');
    }
    expect(fakes.pool.stats()).toMatchObject({ leased: 0, resetting: 1 });
  });
});

describe('destroy', () => {
  it('waits until the VM is gone, and another one is made', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    await lease.destroy();
    expect(fakes.source.vms[0]?.closed).toBe(1);
    expect(fakes.removals).toEqual(['destroyed']);
    await pass(fakes.source.createMs);
    expect(fakes.pool.stats()).toMatchObject({ idle: 1, size: 1 });
  });
});

describe('making a pool', () => {
  it('is refused where the host has no memory for it', async () => {
    await fakes.open({ minSize: 0 });
    const tooMuch = VmPool.over(
      { ...fakes.source.asSource(), bytesPerVm: 10 },
      { maxSize: 3 },
      new MemoryLedger(() => Promise.resolve(29)),
    );
    expect(await failureOf(tooMuch)).toMatchObject({ code: 'ERR_POOL_MEMORY', value: 3 });
    expect(fakes.source.attempts).toBe(0);
  });

  it('ends in time, or when it is told to', async () => {
    await fakes.open({ minSize: 0 });
    await fakes.pool.close();
    fakes.source.createMs = 1_000;
    const late = failureOf(VmPool.over(fakes.source.asSource(), { timeoutMs: 100 }, memory()));
    await pass(100);
    expect(await late).toMatchObject({ code: 'ERR_POOL_TIMEOUT', operation: 'create' });
    const abort = new AbortController();
    const aborted = failureOf(
      VmPool.over(fakes.source.asSource(), { signal: abort.signal }, memory()),
    );
    await pass(10);
    abort.abort('enough');
    expect(await aborted).toBe('enough');
  });
});

describe('the end of a pool', () => {
  it('is waited for by drain until the last lease is over', async () => {
    await fakes.open({ minSize: 3, maxSize: 3 });
    const leases = await fakes.acquire(3);
    const waiting = fakes.pool.acquire();
    const drained = vi.fn();
    const draining = fakes.pool.drain();
    void draining.then(drained);
    expect(await failureOf(fakes.pool.acquire())).toMatchObject({
      code: 'ERR_POOL_CLOSED',
      message: 'pool fakes is draining',
    });
    await leases[0]!.release();
    await pass(fakes.source.resetMs);
    const last = await waiting;
    await leases[1]!.release();
    await leases[2]!.release();
    await pass(10_000);
    expect(fakes.pool.stats()).toMatchObject({ size: 1, leased: 1, making: 0 });
    expect(drained).not.toHaveBeenCalled();
    await last.release();
    await pass(0);
    await draining;
    expect(fakes.source.alive).toEqual([]);
    await fakes.pool.drain();
  });

  it('is not forced by a drain that takes too long', async () => {
    await fakes.open({ maxSize: 1 });
    const lease = await fakes.pool.acquire();
    const late = failureOf(fakes.pool.drain({ timeoutMs: 1_000 }));
    await pass(1_000);
    expect(await late).toMatchObject({ code: 'ERR_POOL_TIMEOUT', operation: 'drain' });
    expect(fakes.source.vms[0]?.closed).toBe(0);
    const drained = fakes.pool.drain();
    await lease.release();
    await pass(0);
    await drained;
  });

  it('is told to all who wait, and ends what is under way', async () => {
    await fakes.open({ minSize: 2, maxSize: 2 });
    const [first, second] = await fakes.acquire(2);
    const waiting = failureOf(fakes.pool.acquire());
    await first!.release(); // is being reset
    await second!.destroy(); // is being made anew
    await pass(0);
    expect(fakes.pool.stats()).toMatchObject({ resetting: 1, making: 1, waiting: 1 });
    const closing = fakes.pool.close();
    expect(fakes.pool.close()).toBe(closing);
    expect(await waiting).toMatchObject({ code: 'ERR_POOL_CLOSED' });
    await closing;
    expect(fakes.source.alive).toEqual([]);
    expect(await failureOf(fakes.pool.acquire())).toMatchObject({
      message: 'pool fakes is closed',
    });
    expect(fakes.pool.stats()).toMatchObject({ size: 0, making: 0 });
    expect(fakes.count('pool.closed')).toBe(1);
    await first!.release();
    await fakes.pool.drain();
  });

  it('takes leased VMs with it', async () => {
    await fakes.open();
    const lease = await fakes.pool.acquire();
    await fakes.pool.close();
    expect(fakes.source.vms[0]?.closed).toBe(1);
    await lease.release();
    await lease.destroy();
  });
});
