import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { failureOf } from '../state.ts';
import { SOON_MS, run, type VmOfTest } from './guest.ts';
import { SCALE } from '../../../scale.ts';

/** Commands of a VM whose vCPUs stand still for a while. */
export function describePause(vm: VmOfTest): void {
  describe('a paused VM', () => {
    it('keeps its commands, and has the right time when it goes on', async () => {
      const handle = await vm().commands.run('read -r line; echo "$line"', {
        background: true,
        stdin: true,
        timeoutMs: 0,
      });
      await vm().pause();
      expect(vm().state).toBe('paused');
      expect(await failureOf(run(vm, 'true'))).toMatchObject({
        name: 'StateError',
        actual: 'paused',
        required: ['running'],
      });
      const sent = handle.sendStdin('after the pause\n');
      await delay(3_000);
      await vm().resume();
      expect(vm().state).toBe('running');
      const { stdout } = await run(vm, 'date +%s.%N');
      expect(Math.abs(Number(stdout) - Date.now() / 1_000)).toBeLessThan(1.5 * SCALE);
      await sent;
      expect((await handle.wait()).stdout).toBe('after the pause\n');
    });

    it('does not count the pause against a command’s timeout', async () => {
      const command = run(vm, 'sleep 1; echo ok', { timeoutMs: 3_000 * SCALE });
      await expect.poll(() => vm().commands.list(), { timeout: SOON_MS }).toHaveLength(1);
      await vm().pause();
      await delay(14_000 + 3_000 * SCALE); // longer than the timeout and the grace after it
      await vm().resume();
      expect((await command).stdout).toBe('ok\n');
    });
  });
}
