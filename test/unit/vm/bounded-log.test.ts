import { spawnSync } from 'node:child_process';
import { appendFile, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StateDirError } from '../../../src/errors.ts';
import {
  BoundedLog,
  FILE_LIMIT_BYTES,
  LOG_BASE_BYTES,
  LOG_CAP_BYTES,
} from '../../../src/vm/bounded-log.ts';

let dir: string;
let log: BoundedLog;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-log-'));
  log = new BoundedLog(join(dir, 'console.log'));
});
afterEach(() => rm(dir, { recursive: true }));

const write = (text: string) => appendFile(log.path, text);

describe('BoundedLog', () => {
  it('starts as a hole that takes no space', async () => {
    await log.ensure();
    const { size, blocks } = await stat(log.path);
    expect(size).toBe(LOG_BASE_BYTES);
    expect(blocks * 512).toBeLessThan(64 * 1024);
    expect(await log.usedBytes()).toBe(0);
    expect(await log.tail()).toBe('');
  });

  it('gives back its end', async () => {
    await log.ensure();
    await write('first\nsecond\n');
    await log.ensure(); // leaves it alone
    expect(await log.usedBytes()).toBe(13);
    expect(await log.tail()).toBe('first\nsecond\n');
    expect(await log.tail(7)).toBe('second\n');
    expect(await log.recent(7)).toBe('second\n');
  });

  it('cannot be grown past its bound by a process under the limit', async () => {
    await log.ensure();
    const blocks = FILE_LIMIT_BYTES / 512;
    const script = `trap '' XFSZ; ulimit -f ${blocks}; yes 0123456789 | head -c 6000000 >>"$1"; true`;
    spawnSync('/bin/sh', ['-c', script, 'sh', log.path]);
    expect(await log.usedBytes()).toBeGreaterThan(LOG_CAP_BYTES - 64 * 1024);
    expect(await log.usedBytes()).toBeLessThanOrEqual(LOG_CAP_BYTES);
  });

  it('rotates where it is half full, and keeps what was before', async () => {
    await log.ensure();
    await write('old\n');
    expect(await log.rotate()).toBe(false);
    await write('x'.repeat(LOG_CAP_BYTES / 2));
    expect(await log.rotate()).toBe(true);
    expect(await log.usedBytes()).toBe(0);
    await write('new\n');
    expect((await readFile(log.rotatedPath, 'utf8')).startsWith('old\n')).toBe(true);
    expect((await log.tail(100)).endsWith('xxxnew\n')).toBe(true);
    expect(await log.recent(100)).toBe('new\n');
    expect((await readdir(dir)).sort()).toEqual(['console.log', 'console.log.1']);
  });

  it('starts a new life empty, with the last life’s text beside it', async () => {
    await log.startAnew();
    await write('life 1\n');
    await log.startAnew();
    expect(await log.recent(100)).toBe('');
    expect(await log.tail(100)).toBe('life 1\n');
  });

  it('is followed over a rotation, until the signal', async () => {
    await log.ensure();
    await write('a');
    const over = new AbortController();
    const seen: string[] = [];
    const following = (async () => {
      for await (const piece of log.follow({ signal: over.signal })) {
        seen.push(piece.toString());
        if (seen.join('') === 'a') await write('b');
        if (seen.join('') === 'ab') {
          await log.rotate(0);
          await write('c');
        }
        if (seen.join('') === 'abc') over.abort();
      }
    })();
    await following;
    expect(seen.join('')).toBe('abc');
  });

  it('ends a reader when it is removed with its VM', async () => {
    await log.ensure();
    const { signal } = new AbortController();
    const reading = log.follow({ signal })[Symbol.asyncIterator]();
    await write('x');
    expect((await reading.next()).value?.toString()).toBe('x');
    await rm(log.path);
    expect(await reading.next()).toEqual({ done: true, value: undefined });
  });

  it('says what is wrong where it cannot be made', async () => {
    const lost = new BoundedLog(join(dir, 'no/where/console.log'));
    await expect(lost.ensure()).rejects.toBeInstanceOf(StateDirError);
    await expect(lost.ensure()).rejects.toMatchObject({ path: lost.path });
    expect(await lost.tail()).toBe('');
    expect(await lost.usedBytes()).toBe(0);
  });
});
