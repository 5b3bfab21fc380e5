import { describe, expect, it } from 'vitest';
import { boundedLines } from '../../../firmware/bounded-lines.ts';

async function lines(...chunks: readonly string[]): Promise<string[]> {
  async function* source(): AsyncGenerator<Buffer> {
    for (const chunk of chunks) yield await Promise.resolve(Buffer.from(chunk));
  }
  const found: string[] = [];
  for await (const line of boundedLines(source(), 5)) found.push(line);
  return found;
}

describe('boundedLines', () => {
  it.each<[string, readonly string[], readonly string[]]>([
    ['whole lines', ['a\nb\n'], ['a', 'b']],
    ['lines over chunks', ['a', 'b\nc', '\n'], ['ab', 'c']],
    ['a last line without an end', ['a\nb'], ['a', 'b']],
    ['empty lines', ['\n\na\n'], ['', '', 'a']],
    ['carriage returns', ['a\r\nb\rc\r', '\nd'], ['a', 'b', 'c', 'd']],
    ['lines too long', ['123456789\nabcdefgh'], ['12345', 'abcde']],
    [
      'a line without end',
      [...Array.from({ length: 50 }, () => 'xx'), '\nnext'],
      ['xxxxx', 'next'],
    ],
    ['characters of several bytes over chunks', ['ü'], ['ü']],
    ['nothing', [], []],
  ])('%s', async (_, chunks, expected) => {
    expect(await lines(...chunks)).toEqual(expected);
  });
});
