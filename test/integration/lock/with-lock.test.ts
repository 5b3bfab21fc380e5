/** Locks between processes, with `flock(1)` as another holder. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { tryLock, withLock } from '../../../src/with-lock.ts';

let dir: string;
let path: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lock-'));
  path = join(dir, 'some.lock');
});
afterEach(() => rm(dir, { recursive: true, force: true }));

it('is held by one at a time, and is free again with the end of its holder', async () => {
  const command = ['--no-fork', path, 'sh', '-c', 'echo held; exec sleep 60'];
  const holder = execa('flock', command, { reject: false });
  await once(holder.stdout, 'data');
  expect(await tryLock(path)).toBeUndefined();
  process.kill(holder.pid!, 'SIGKILL');
  const lock = await eventually(() => tryLock(path));
  await lock.close();
  await holder;
});

it('is not held by who waits at a file that its holder has removed', async () => {
  const first = await tryLock(path);
  const took: number[] = [];
  const second = withLock(path, undefined, async () => {
    took.push((await stat(path)).ino);
    expect(await tryLock(path)).toBeUndefined();
  });
  await delay(30);
  await unlink(path);
  await first!.close();
  await second;
  expect(took).toHaveLength(1);
  expect(await readFile(path, 'utf8')).toBe('');
});

it('lets nobody in twice, however often its holders remove the file', async () => {
  let inside = 0;
  const turns = Array.from({ length: 8 }, async () => {
    for (let turn = 0; turn < 25; turn += 1) {
      await withLock(path, undefined, async () => {
        inside += 1;
        expect(inside).toBe(1);
        await delay(1);
        inside -= 1;
        await unlink(path);
      });
    }
  });
  await Promise.all(turns);
});

async function eventually<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 200; tries += 1) {
    const found = await ask();
    if (found !== undefined) return found;
    await delay(10);
  }
  throw new Error('it never came');
}
