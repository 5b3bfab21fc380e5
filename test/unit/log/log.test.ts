import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LogConfig } from '../../../src/config/schema.ts';
import { EventStream } from '../../../src/events.ts';
import { passes } from '../../../src/log/levels.ts';
import { startLog } from '../../../src/log/index.ts';

let dir: string;
let file: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-log-'));
  file = join(dir, 'log');
});
afterEach(() => rm(dir, { recursive: true }));

async function lines(config: Partial<LogConfig>, announce: (events: EventStream) => void) {
  const events = new EventStream();
  const log = await startLog(
    { level: 'info', format: 'json', trace: [], file, ...config },
    { events },
  );
  announce(events);
  await log.close();
  await log.close();
  const text = await readFile(file, 'utf8');
  return text.split('\n').filter((line) => line !== '');
}

const warning = { code: 'accel.tcg', message: 'no KVM', hint: 'load the module' };

describe('the log', () => {
  it('writes what passes the threshold, with all fields of the event and its own time', async () => {
    const [first, ...rest] = await lines({ level: 'warn' }, (events) => {
      events.emit('guest.disconnected', { reason: 'closed' });
      events.emit('host.warning', { ...warning, vmId: 'abc' });
    });
    expect(rest).toEqual([]);
    expect(JSON.parse(first!)).toMatchObject({
      level: 'warn',
      type: 'host.warning',
      vmId: 'abc',
      ...warning,
      msg: 'no KVM (load the module)',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    });
  });

  it('writes a line for people', async () => {
    const [line] = await lines({ format: 'pretty' }, (events) =>
      events.emit('host.warning', warning),
    );
    expect(line).toMatch(/^\[.+\] WARN: no KVM \(load the module\)$/);
  });

  it('writes transcripts where they were asked for, at any level, and no others', async () => {
    const found = await lines({ level: 'error', trace: ['qmp'] }, (events) => {
      expect([events.traces('qmp'), events.traces('agent')]).toEqual([true, false]);
      events.emit('trace.qmp', { direction: 'out', line: '{"execute":"quit"}' });
    });
    expect(found).toHaveLength(1);
  });

  it('keeps what comes while pino is being loaded', async () => {
    const found = await lines({}, (events) => {
      for (let i = 0; i < 500; i += 1) events.emit('gc.reaped', { kind: 'dir', path: `/${i}` });
    });
    expect(found.map((line) => (JSON.parse(line) as { path: string }).path)).toEqual(
      Array.from({ length: 500 }, (_, i) => `/${i}`),
    );
  });

  it('is readable by its owner alone, and is appended to', async () => {
    await lines({}, (events) => events.emit('host.warning', warning));
    const found = await lines({}, (events) => events.emit('host.warning', warning));
    expect(found).toHaveLength(2);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it('says at once where the file cannot be opened', async () => {
    await expect(lines({ file: join(dir, 'no/such/dir') }, () => undefined)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      field: 'log.file',
    });
  });

  it('is silent where it is told to be', () => {
    expect(passes('fault.qemu-died', 'silent')).toBe(false);
    expect(passes('fault.qemu-died', 'error')).toBe(true);
    expect(passes('vm.state', 'info')).toBe(false);
  });
});
