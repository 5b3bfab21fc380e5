import { describe, expect, it } from 'vitest';
import { CommandExitError } from '../../../../src/errors.ts';
import { failureOf } from '../state.ts';
import { SOON_MS, countOf, run, type VmOfTest } from './guest.ts';
import { SCALE } from '../../../scale.ts';

/** How a command ends before it would by itself. */
export function describeEnd(vm: VmOfTest): void {
  describe('the end of a command', () => {
    it('by its timeout: the whole tree is killed', async () => {
      const script = 'setsid sleep 613 & sleep 613 & echo begun; wait';
      const error = await failureOf(run(vm, script, { timeoutMs: 2_000 * SCALE }));
      expect(error).toBeInstanceOf(CommandExitError);
      expect(error).toMatchObject({
        message: 'command timed out and was killed',
        result: { stdout: 'begun\n', timedOut: true, isCanceled: false, signal: 'SIGKILL' },
      });
      await expect.poll(() => countOf(vm, 'sleep'), { timeout: SOON_MS }).toBe(0);
    });

    it('by its signal: the whole tree is killed, and the reason is the cause', async () => {
      const controller = new AbortController();
      const reason = new Error('enough');
      const onStdout = () => controller.abort(reason);
      const { signal } = controller;
      const error = await failureOf(
        run(vm, 'setsid sleep 614 & echo begun; wait', { signal, onStdout, timeoutMs: 0 }),
      );
      expect(error).toBeInstanceOf(CommandExitError);
      expect(error.cause).toBe(reason);
      expect(error).toMatchObject({ result: { isCanceled: true, timedOut: false } });
      await expect.poll(() => countOf(vm, 'sleep'), { timeout: SOON_MS }).toBe(0);
    });

    it('before it began', async () => {
      const reason = new Error('too late');
      const error = await failureOf(run(vm, 'touch begun', { signal: AbortSignal.abort(reason) }));
      expect(error).toBe(reason);
      expect(await run(vm, 'test -e begun', { reject: false })).toMatchObject({ exitCode: 1 });
    });

    it('that comes by itself is no cancellation, although the signal is aborted later', async () => {
      const controller = new AbortController();
      const result = await run(vm, 'true', { signal: controller.signal });
      controller.abort();
      expect(result.isCanceled).toBe(false);
    });
  });
}
