import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WaitQueue } from '../../../src/pool/queue.ts';

const givenUp = vi.fn();
const late = new Error('too late');

beforeEach(() => {
  vi.useFakeTimers();
  givenUp.mockClear();
});
afterEach(() => vi.useRealTimers());

const wait = (queue: WaitQueue<string>, o: { timeoutMs?: number; signal?: AbortSignal } = {}) =>
  queue.wait({ timeoutMs: 1_000, onTimeout: () => late, onGiveUp: givenUp, ...o });

describe('a queue', () => {
  it('serves in the order of arrival', async () => {
    const queue = new WaitQueue<string>();
    const all = ['a', 'b', 'c'].map(() => wait(queue));
    expect(queue.size).toBe(3);
    for (const value of ['1', '2', '3']) expect(queue.serve(value)).toBe(true);
    expect(queue.serve('4')).toBe(false);
    expect(await Promise.all(all)).toEqual(['1', '2', '3']);
    expect(queue.size).toBe(0);
    expect(givenUp).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('passes over those who gave up', async () => {
    const queue = new WaitQueue<string>();
    const abort = new AbortController();
    const gone = [
      wait(queue, { signal: abort.signal }).catch((error: unknown) => error),
      wait(queue, { timeoutMs: 10 }).catch((error: unknown) => error),
    ];
    const stays = wait(queue);
    vi.advanceTimersByTime(10);
    const reason = new Error('enough');
    abort.abort(reason);
    expect(await Promise.all(gone)).toEqual([reason, late]);
    expect(givenUp).toHaveBeenCalledTimes(2);
    expect(queue.size).toBe(1);
    queue.serve('value');
    expect(await stays).toBe('value');
    expect(vi.getTimerCount()).toBe(0);
  });

  it('can be ended for all', async () => {
    const queue = new WaitQueue<string>();
    const all = [wait(queue), wait(queue)].map((one) => one.catch((error: unknown) => error));
    const end = new Error('closed');
    queue.failAll(end);
    expect(await Promise.all(all)).toEqual([end, end]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
