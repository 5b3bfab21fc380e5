import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { rotatedLogPath, TrafficLog } from '../../../../src/network/traffic/log-file.ts';
import type { TrafficRecord } from '../../../../src/network/traffic/record.ts';

/** A record, or one that fills a file. */
const record = (name: string) => ({ kind: 'dns', name }) as Partial<TrafficRecord> as TrafficRecord;

it.each([
  [undefined, 0o600],
  [true, 0o644],
] as const)(
  'a log that is open (%s) is of this mode, and so is the one before it',
  async (isOpen, mode) => {
    const dir = await mkdtemp(join(tmpdir(), 'qa-log-'));
    const path = join(dir, 'log');
    const log = new TrafficLog(path, { isOpen });
    for (const text of ['x'.repeat(5 * 2 ** 20), 'y']) {
      log.add(record(text));
      await log.settle();
    }
    for (const file of [path, rotatedLogPath(path)]) {
      const facts = await stat(file);
      expect(facts.mode & 0o777).toBe(mode);
      expect(facts.uid).toBe(process.getuid?.());
    }
    await rm(dir, { recursive: true });
  },
);
