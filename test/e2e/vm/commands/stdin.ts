import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { CommandOptions } from '../../../../src/vm/command-types.ts';
import { failureOf } from '../state.ts';
import { SOON_MS, countOf, run, type VmOfTest } from './guest.ts';

const MIB = 2 ** 20;
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

/** What a command reads. */
export function describeStdin(vm: VmOfTest): void {
  describe('stdin', () => {
    const bytes = randomBytes(3 * MIB);

    it.each<[string, CommandOptions['stdin'], string]>([
      ['none', undefined, ''],
      ['false', false, ''],
      ['text', 'a é\n', 'a é\n'],
      ['no text', '', ''],
      ['bytes', Buffer.from('bytes'), 'bytes'],
      ['a view of bytes', new Uint8Array(Buffer.from('-view-')).subarray(1, 5), 'view'],
      ['a stream', Readable.from(['one ', 'two']), 'one two'],
      ['an empty stream', Readable.from([]), ''],
    ])('%s', async (_what, stdin, expected) => {
      expect((await run(vm, 'cat', { stdin, timeoutMs: SOON_MS })).stdout).toBe(expected);
    });

    it('takes MiB, every byte', async () => {
      for (const stdin of [bytes, Readable.from([bytes.subarray(0, MIB), bytes.subarray(MIB)])]) {
        const { stdout } = await run(vm, 'sha256sum', { stdin });
        expect(stdout).toContain(sha256(bytes));
      }
      const back = await vm().commands.run('cat', { stdin: bytes, encoding: 'buffer' });
      expect(back.stdout.equals(bytes)).toBe(true);
    });

    it('need not be read', async () => {
      expect((await run(vm, 'echo done', { stdin: bytes, timeoutMs: SOON_MS })).stdout).toBe(
        'done\n',
      );
      const endless = Readable.from(
        (function* () {
          for (;;) yield bytes;
        })(),
      );
      const { stdout } = await run(vm, 'head -c 5 | wc -c', { stdin: endless, timeoutMs: SOON_MS });
      expect(stdout.trim()).toBe('5');
      expect(endless.destroyed).toBe(true);
    });

    it('that fails in the midst ends the command, which would take the rest for all', async () => {
      const broken = Readable.from(
        (function* () {
          yield 'first half';
          throw new Error('source broke');
        })(),
      );
      const error = await failureOf(run(vm, 'cat > half; sleep 612', { stdin: broken }));
      expect(error.message).toBe('source broke');
      await expect.poll(() => countOf(vm, 'sleep'), { timeout: SOON_MS }).toBe(0);
    });
  });
}
