/** Lines of a program's output, none longer than a limit: output without newlines costs no memory. */

/**
 * Yields each line without its end (`\n`, `\r\n`; a lone `\r` ends one too, as progress bars have it).
 * What a line has beyond `maxBytes` is dropped.
 */
export async function* boundedLines(
  source: AsyncIterable<Buffer | string>,
  maxBytes: number,
): AsyncGenerator<string> {
  let line: Buffer[] = [];
  let length = 0;
  let afterReturn = false;
  const take = (): string => {
    const text = Buffer.concat(line).toString('utf8');
    line = [];
    length = 0;
    return text;
  };
  for await (const part of source) {
    const chunk = Buffer.from(part);
    let from = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      if (byte !== 0x0a && byte !== 0x0d) {
        afterReturn = false;
        continue;
      }
      keep(chunk.subarray(from, at));
      from = at + 1;
      if (!(byte === 0x0a && afterReturn)) yield take();
      afterReturn = byte === 0x0d;
    }
    keep(chunk.subarray(from));
  }
  if (length > 0) yield take();

  function keep(bytes: Buffer): void {
    const kept = bytes.subarray(0, maxBytes - length);
    if (kept.length === 0) return;
    line.push(kept);
    length += kept.length;
  }
}
