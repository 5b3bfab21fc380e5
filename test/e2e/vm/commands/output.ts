import { describe, expect, it } from 'vitest';
import { failureOf } from '../state.ts';
import { SOON_MS, countOf, run, type VmOfTest } from './guest.ts';

/** What a command prints: order, limits, back-pressure. */
export function describeOutput(vm: VmOfTest): void {
  describe('output', () => {
    it('comes as it is written, in order, in whole characters', async () => {
      const seen: string[] = [];
      const pieces: string[] = [];
      const script = `printf 'a\\342'; sleep 0.5; printf '\\202'; sleep 0.5; printf '\\254b'
      echo 1 >&2; sleep 0.3; echo 2 >&2; sleep 0.3; echo 3`;
      await run(vm, script, {
        onStdout: (data) => void (seen.push(data), pieces.push(data)),
        onStderr: (data) => void seen.push(`(${data.trim()})`),
      });
      expect(seen.join('')).toBe('a€b(1)(2)3\n');
      expect(pieces.join('')).not.toContain('\ufffd');
      expect(pieces.length).toBeGreaterThan(2);
    });

    it('is bytes where bytes are wanted', async () => {
      const seen: Buffer[] = [];
      const result = await vm().commands.run(['printf', '\\377\\000\\342'], {
        encoding: 'buffer',
        onStdout: (data) => void seen.push(data),
      });
      expect(result.stdout).toEqual(Buffer.from([255, 0, 0xe2]));
      expect(Buffer.concat(seen)).toEqual(result.stdout);
      expect((await run(vm, "printf '\\377'")).stdout).toBe('\ufffd');
    });

    it('is cut at its limit, with a mark, and heard all the same', async () => {
      let heard = 0;
      const result = await run(vm, 'seq 1 20000; echo end >&2', {
        maxOutputBytes: 12,
        onStdout: (data) => void (heard += data.length),
      });
      expect(result.stdout).toMatch(/^\[… \d+ bytes truncated …\]\n19999\n20000\n$/);
      expect(result.stderr).toBe('end\n');
      expect(result.truncated).toBe(true);
      expect(heard).toBe(108_894);
    });

    it('holds the command back while its listener is busy', async () => {
      let open = (): void => undefined;
      const gate = new Promise<void>((resolve) => (open = resolve));
      const BYTES = 16 * 2 ** 20; // more than fits between the two
      let heard = 0;
      const command = vm().commands.run(`head -c ${BYTES} /dev/zero`, {
        encoding: 'buffer',
        maxOutputBytes: 1,
        timeoutMs: 0,
        onStdout: async (data) => {
          heard += data.length;
          await gate;
        },
      });
      await expect.poll(() => heard, { timeout: SOON_MS }).toBeGreaterThan(0);
      const before = heard;
      // Other commands are not held up, and this one is still writing after them.
      for (let i = 0; i < 5; i += 1) await run(vm, 'true');
      expect(await vm().commands.list()).toHaveLength(1);
      expect(heard).toBe(before);
      open();
      await command;
      expect(heard).toBe(BYTES);
    });

    it('whose listener fails ends the command with the listener’s error', async () => {
      const onStdout = () => {
        throw new Error('cannot take it');
      };
      const error = await failureOf(run(vm, 'echo x; sleep 615', { onStdout, timeoutMs: 0 }));
      expect(error.message).toBe('cannot take it');
      await expect.poll(() => countOf(vm, 'sleep'), { timeout: SOON_MS }).toBe(0);
    });
  });
}
