import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { armDeadline } from '../../../qmp/deadline.ts';
import { TimeoutError } from '../../../src/errors.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('armDeadline', () => {
  it('expires once, by time or by signal', () => {
    const expired: unknown[] = [];
    const controller = new AbortController();
    const { signal } = controller;
    armDeadline('x', { signal, timeoutMs: 10 }, 'hint', (reason) => expired.push(reason));
    vi.advanceTimersByTime(10);
    controller.abort('late');
    expect(expired).toEqual([expect.objectContaining({ operation: 'x', hint: 'hint' })]);
    expect(expired[0]).toBeInstanceOf(TimeoutError);
  });

  it('expires by a signal that was aborted before, but not at once', async () => {
    const expired: unknown[] = [];
    const signal = AbortSignal.abort('early');
    armDeadline('x', { signal }, 'hint', (reason) => expired.push(reason));
    expect(expired).toEqual([]);
    await Promise.resolve();
    expect(expired).toEqual(['early']);
  });

  it('is silent when disarmed, and where there is no limit', async () => {
    const expired: unknown[] = [];
    const signal = AbortSignal.abort('early');
    const push = (reason: unknown): void => void expired.push(reason);
    armDeadline('x', { signal, timeoutMs: 10 }, 'hint', push)();
    // A delay above 2^31-1 ms would make setTimeout fire at once.
    for (const timeoutMs of [Infinity, 2 ** 31, undefined]) {
      armDeadline('x', { timeoutMs }, 'hint', push);
    }
    vi.advanceTimersByTime(1_000_000);
    await Promise.resolve();
    expect(expired).toEqual([]);
  });
});
