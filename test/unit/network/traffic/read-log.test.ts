import { appendFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { TrafficLog } from '../../../../src/network/traffic/log-file.ts';
import { readLog } from '../../../../src/network/traffic/read-log.ts';
import type { TrafficRecord } from '../../../../src/network/traffic/record.ts';

let dir: string;
let path: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'read-log-'));
  path = join(dir, 'network.jsonl');
});
afterEach(() => rm(dir, { recursive: true }));

/** Follows until it has heard this line, or for so long. */
async function follow(last: string, o: { timeoutMs?: number } = {}): Promise<string[]> {
  const lines: string[] = [];
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error('late')), o.timeoutMs ?? 10_000);
  try {
    for await (const line of readLog(path, { follow: true, signal: controller.signal })) {
      lines.push(line);
      if (line === last) break;
    }
  } finally {
    clearTimeout(timer);
  }
  return lines;
}

/** Longer than between two looks. */
const A_LOOK_MS = 500;
const rotate = () => rename(path, `${path}.1`);

it('of what is there gives each line once: of the file that was set aside, too', async () => {
  await writeFile(`${path}.1`, 'a\nb\n');
  await writeFile(path, 'c\nhalf');
  const lines: string[] = [];
  for await (const line of readLog(path)) lines.push(line);
  expect(lines).toEqual(['a', 'b', 'c']);
});

it('follows a log that is not there yet, and lines that come in pieces', async () => {
  const heard = follow('end');
  await delay(A_LOOK_MS);
  const letters = Buffer.from('zwölf\nend\n');
  await writeFile(path, letters.subarray(0, 3)); // within a letter
  await delay(A_LOOK_MS);
  await appendFile(path, letters.subarray(3));
  expect(await heard).toEqual(['zwölf', 'end']);
});

it('loses nothing at a rotation: not what came before it since the last look, nor a new file that is longer', async () => {
  await writeFile(path, 'a\n');
  const heard = follow('end');
  await delay(A_LOOK_MS);
  await appendFile(path, 'b\n');
  await rotate();
  await writeFile(path, 'c and much more\n');
  await delay(A_LOOK_MS);
  await appendFile(path, 'd\n');
  await rotate();
  await writeFile(path, 'e\n');
  await rotate(); // twice between two looks
  await writeFile(path, 'end\n');
  expect(await heard).toEqual(['a', 'b', 'c and much more', 'd', 'e', 'end']);
});

it('begun in the midst of a rotation, gives each line once', async () => {
  await writeFile(`${path}.1`, 'a\n');
  const heard = follow('end');
  await delay(A_LOOK_MS);
  await appendFile(`${path}.1`, 'b\n');
  await writeFile(path, 'c\nend\n');
  expect(await heard).toEqual(['a', 'b', 'c', 'end']);
});

it('loses nothing of what the service writes, however often it rotates', async () => {
  const count = 12_000;
  const log = new TrafficLog(path);
  const heard = follow(JSON.stringify({ name: 'end' }), { timeoutMs: 60_000 });
  for (let n = 0; n < count; n++) {
    log.add({ name: `${n}`, error: 'x'.repeat(1_000) } as Partial<TrafficRecord> as TrafficRecord);
    if (n % 500 === 499) {
      await log.settle();
      await delay(50);
    }
  }
  log.add({ name: 'end' } as Partial<TrafficRecord> as TrafficRecord);
  await log.settle();
  const names = (await heard).map((line) => (JSON.parse(line) as { name: string }).name);
  expect(names).toEqual([...Array.from({ length: count }, (_, n) => `${n}`), 'end']);
}, 60_000);

it('ends with the signal’s reason', async () => {
  await expect(follow('never', { timeoutMs: 300 })).rejects.toThrow('late');
});
