import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { rotatedLogPath, TrafficLog } from '../../../../src/network/traffic/log-file.ts';
import type { TrafficRecord } from '../../../../src/network/traffic/record.ts';

/** A record, or one that fills a file. */
const record = (name: string) => ({ kind: 'dns', name }) as Partial<TrafficRecord> as TrafficRecord;

it.each([
  [undefined, 0o600, 4],
  [true, 0o644, 1],
] as const)(
  'a log that is open (%s) is of this mode, and so is the one before it, of at most so many MiB',
  async (isOpen, mode, mib) => {
    const dir = await mkdtemp(join(tmpdir(), 'qa-log-'));
    const path = join(dir, 'log');
    const log = new TrafficLog(path, { isOpen });
    for (const text of ['x'.repeat(mib * 2 ** 20 - 100), 'x'.repeat(100), 'y']) {
      log.add(record(text));
      await log.settle();
    }
    for (const file of [path, rotatedLogPath(path)]) {
      const facts = await stat(file);
      expect(facts.mode & 0o777).toBe(mode);
      expect(facts.size > 1_000).toBe(file !== path);
      expect(facts.uid).toBe(process.getuid?.());
    }
    await rm(dir, { recursive: true });
  },
);
