import { appendFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { GuestPanicError } from '../../../src/errors.ts';
import { BoundedLog } from '../../../src/vm/bounded-log.ts';
import type { QemuProcess } from '../../../src/vm/launcher.ts';
import { lastLine, VmWatch } from '../../../src/vm/vm-watch.ts';

describe('a kernel that panics', () => {
  /** What the watch says of a console to which these lines come one by one, every so many ms. */
  async function panicOf(lines: readonly string[], everyMs: number): Promise<GuestPanicError> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-watch-'));
    const consoleLog = new BoundedLog(join(dir, 'console.log'));
    const qemuLog = new BoundedLog(join(dir, 'qemu.log'));
    await Promise.all([consoleLog.ensure(), qemuLog.ensure()]);
    const process: QemuProcess = {
      identity: { pid: 1, startTicks: 0, bootId: '' },
      exited: new Promise(() => undefined),
      kill: () => false,
      release: () => undefined,
    };
    const disk = { vmId: 'test', path: join(dir, 'disk'), quotaBytes: undefined };
    const watch = new VmWatch({ vmId: 'test', process, consoleLog, qemuLog, disk });
    const told = new Promise<unknown>((resolve) => {
      watch.fault.addEventListener('abort', () => resolve(watch.fault.reason));
    });
    try {
      for (const line of lines) {
        await appendFile(consoleLog.path, `${line}\n`);
        await delay(everyMs);
      }
      const reason = await told;
      expect(reason).toBeInstanceOf(GuestPanicError);
      return reason as GuestPanicError;
    } finally {
      watch.release();
      await rm(dir, { recursive: true });
    }
  }
  const HEAD = 'Kernel panic - not syncing: sysrq triggered crash';

  it('may be slow: its text is waited for', async () => {
    const { panic } = await panicOf(
      [HEAD, 'CPU: 0', 'Tainted: no', 'Call Trace:', ` panic+0x118`, `---[ end ${HEAD} ]---`],
      200,
    );
    expect(panic).toContain('Call Trace');
    expect(panic).toContain('---[ end');
  });

  it('may stop in the midst of it: that is told, too', async () => {
    expect((await panicOf([HEAD, 'CPU: 0'], 0)).panic).toBe(`${HEAD}\nCPU: 0`);
  });
});

it('is the last that QEMU said, but for what it says of each isolated VM', () => {
  const noPeer = 'qemu-system-x86_64: warning: nic nic0 has no peer\n';
  expect(lastLine('')).toBe('');
  expect(lastLine(noPeer)).toBe('');
  expect(lastLine(`one\ntwo \n${noPeer}\n`)).toBe('two');
});
