/** Each style tool is one test; its own output is the failure's message. */
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

const TOOLS: readonly { name: string; argv: readonly [string, ...string[]] }[] = [
  { name: 'types (tsc)', argv: ['tsc', '--noEmit', '-p', 'tsconfig.json'] },
  { name: 'lint (eslint)', argv: ['eslint', '.', '--max-warnings=0'] },
  { name: 'format (prettier)', argv: ['prettier', '--check', '.'] },
  {
    name: 'import directions (dependency-cruiser)',
    argv: [
      'depcruise',
      '--config',
      '.dependency-cruiser.cjs',
      ...['qmp', 'nft', 'guest-agent', 'firmware', 'src'],
    ],
  },
  { name: 'unused code (knip)', argv: ['knip', '--no-progress'] },
  { name: 'package (publint)', argv: ['publint', '--strict'] },
];

describe('style', () => {
  test.each(TOOLS)('$name', { timeout: 300_000 }, async ({ argv }) => {
    const [command, ...args] = argv;
    const result = await execa(command, args, {
      preferLocal: true,
      reject: false,
      all: true,
      timeout: 280_000,
    });
    expect.soft(result.exitCode, `${argv.join(' ')}\n${result.all}`).toBe(0);
  });
});
