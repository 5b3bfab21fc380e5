/** Waits that a signal ends, and what they leave on it. */
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { setTimeout as delay } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { eitherSignal, lateSignal, onAbort, rejectOnAbort } from '../../../src/vm/abort.ts';

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

describe('a wait that is over', () => {
  it('leaves nothing on a signal that lives on, also where garbage was collected meanwhile', () => {
    const { signal } = new AbortController();
    const waits = Array.from({ length: 20 }, () => new AbortController());
    for (const over of waits) void rejectOnAbort(signal, over.signal);
    expect(getEventListeners(signal, 'abort')).toHaveLength(20);
    collectGarbage();
    for (const over of waits) over.abort();
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('is not told of the abort', () => {
    const [own, over] = [new AbortController(), new AbortController()];
    const told: string[] = [];
    onAbort(own.signal, over.signal, () => told.push('told'));
    over.abort();
    own.abort();
    onAbort(own.signal, over.signal, () => told.push('told'));
    expect(told).toEqual([]);
  });
});

describe('a wait', () => {
  it('is told of the abort once, at once where it has been', async () => {
    const [own, over] = [new AbortController(), new AbortController()];
    const told: string[] = [];
    onAbort(own.signal, over.signal, () => told.push('later'));
    own.abort(new Error('enough'));
    onAbort(own.signal, over.signal, () => told.push('at once'));
    expect(told).toEqual(['later', 'at once']);
    await expect(rejectOnAbort(own.signal, over.signal)).rejects.toThrow('enough');
  });
});

describe('a deadline', () => {
  it('comes, also where garbage was collected meanwhile and only another signal knows of it', async () => {
    const { signal } = new AbortController();
    const either = await new Promise<AbortSignal>((resolve) => {
      setImmediate(() => resolve(eitherSignal(signal, lateSignal(100))));
    });
    await delay(20);
    collectGarbage();
    await delay(200);
    expect(either.aborted).toBe(true);
  });
});
