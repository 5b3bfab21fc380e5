import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bestAio, ioUringObstacle } from '../../../src/vm/disk-aio.ts';
import { findQemu } from '../../../src/vm/launcher.ts';

describe('io_uring', () => {
  let dir: string;
  let qemu: string;
  /** QEMU as a host would have it. */
  const hostOf = async (name: string, script: string): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
    return path;
  };
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qmp-agent-aio-'));
    qemu = (await findQemu('qemu-system-x86_64')).path;
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  it('is taken where the kernel has it for all', async () => {
    const disabled = await readFile('/proc/sys/kernel/io_uring_disabled', 'utf8').catch(() => '0');
    const program = await findQemu(qemu);
    const isFiltered = !/^Seccomp:\s*0$/m.test(await readFile('/proc/self/status', 'utf8'));
    if (disabled.trim() === '1' || isFiltered) return; // for some: who that is, is not ours to say
    expect(program.aio).toBe(disabled.trim() === '0' ? 'io_uring' : 'threads');
  });

  it('is not taken where QEMU was built without it, and why is told', async () => {
    // The answer of such a QEMU, from the real one: it knows no such value.
    const path = await hostOf('without', `exec ${qemu} $(echo "$*" | sed s/=io_uring/=io_urine/)`);
    expect(await ioUringObstacle(path)).toMatch(/does not accept value/);
    expect(await bestAio(path)).toBe('threads');
  });

  it('is not taken where a program says nothing, or is none', async () => {
    expect(await ioUringObstacle(await hostOf('mute', 'exit 3'))).toMatch(/exit code 3/);
    expect(await ioUringObstacle(join(dir, 'missing'))).toMatch(/ENOENT/);
  });
});
