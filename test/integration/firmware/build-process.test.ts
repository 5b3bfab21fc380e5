import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  BuildLog,
  requireTools,
  runBuildCommand,
  type BuildCommand,
} from '../../../firmware/build-process.ts';
import { HostError, ImageError } from '../../../src/errors.ts';
import { SCALE } from '../../scale.ts';

let dir: string;
let log: BuildLog;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'qa-process-'));
  log = new BuildLog(path.join(dir, 'log'));
});
afterEach(async () => {
  await log[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

const sh = (script: string, o: Partial<BuildCommand> = {}) =>
  runBuildCommand({ step: 'it', argv: ['sh', '-c', script], log, ...o });

async function logged(): Promise<string> {
  await log[Symbol.asyncDispose]();
  return readFile(log.path, 'utf8');
}

/** Whether a process group is still there. */
function alive(group: number): boolean {
  try {
    process.kill(-group, 0);
    return true;
  } catch {
    return false;
  }
}

describe('runBuildCommand', () => {
  it('returns what the program printed, and logs both streams', async () => {
    expect(await sh('echo out; echo err >&2; printf "no end"')).toEqual({ stdout: 'out\nno end' });
    expect(await logged()).toMatch(/^ +\d+\.\d # it: sh -c .*\n( +\d+\.\d (out|err|no end)\n){3}$/);
  });

  it('hands over nothing of our environment', async () => {
    const { stdout } = await sh('env', { env: { ONE: '1' } });
    const names = stdout.split('\n').map((line) => line.split('=')[0]);
    expect(names.sort()).toEqual(['LC_ALL', 'ONE', 'PATH', 'PWD']);
  });

  it('pipes its input through', async () => {
    async function* input(): AsyncGenerator<Buffer> {
      for (let n = 0; n < 64; n++) yield await Promise.resolve(Buffer.alloc(65_536, 'x'));
    }
    expect(await sh('wc -c', { input: input() })).toEqual({ stdout: String(64 * 65_536) });
    expect(await sh('head -c 3', { input: input() })).toEqual({ stdout: 'xxx' });
  });

  it('ends the program where reading its input fails, with that error', async () => {
    const reason = new Error('the source broke');
    async function* input(): AsyncGenerator<Buffer> {
      yield await Promise.resolve(Buffer.from('x'));
      throw reason;
    }
    await expect(sh('cat; sleep 600', { input: input() })).rejects.toBe(reason);
  });

  it('names the step that failed, with its last lines', async () => {
    const script = 'for n in $(seq 50); do echo line $n; done; echo STEP two; echo why >&2; exit 7';
    const onLine = (line: string): string | undefined => /^STEP (.*)/.exec(line)?.[1];
    const fault = await sh(script, { onLine, errorCode: 'ERR_IMAGE_IMPORT' }).catch(
      (e: unknown) => e,
    );
    expect(fault).toBeInstanceOf(ImageError);
    expect(fault).toMatchObject({ code: 'ERR_IMAGE_IMPORT', step: 'two', logPath: log.path });
    const { message } = fault as Error;
    expect(message).toMatch(/^step "two" failed \(exit code 7\); its last lines:\n/);
    expect(message).toContain('  why');
    expect(message).not.toContain('line 5\n');
  });

  it.each<[string, BuildCommand['argv'], object]>([
    [
      'a signal',
      ['sh', '-c', 'kill -9 $$'],
      { message: expect.stringContaining('ended by SIGKILL') },
    ],
    ['no such program', ['/nonexistent/it'], { message: expect.stringContaining('ENOENT') }],
    [
      'a full disk',
      ['sh', '-c', 'echo "tar: x: No space left on device"; exit 2'],
      { code: 'ERR_HOST_DISK_FULL' },
    ],
    [
      'a full image',
      ['sh', '-c', 'echo "mke2fs: Could not allocate block in ext2 filesystem while x"; exit 1'],
      { code: 'ERR_IMAGE_BUILD', hint: expect.stringContaining('sizeMib') },
    ],
  ])('names %s', async (_, argv, expected) => {
    await expect(runBuildCommand({ step: 'it', argv, log })).rejects.toMatchObject(expected);
  });

  it('kills the whole tree when it is told to end, and what a program leaves behind', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    let group = 0;
    const onLine = (line: string): undefined => {
      group = Number(line);
      controller.abort(reason);
      return undefined;
    };
    const script = 'trap "" TERM INT; sleep 600 & echo $$; sleep 600';
    await expect(sh(script, { onLine, signal: controller.signal })).rejects.toBe(reason);
    await expect.poll(() => alive(group), { timeout: 5000 * SCALE }).toBe(false);
    const { stdout } = await sh('sleep 600 >/dev/null 2>&1 & echo $$');
    await expect.poll(() => alive(Number(stdout)), { timeout: 5000 * SCALE }).toBe(false);
    await expect(sh('true', { signal: controller.signal })).rejects.toBe(reason);
  });

  it('keeps output without newlines within bounds', async () => {
    const { stdout } = await sh('head -c 20000000 /dev/zero | tr "\\0" x');
    expect(stdout.length).toBe(4096);
  });

  it('writes no passwords and no hidden words, not in errors either', async () => {
    log.hide(['proxy.example']);
    const fault = await sh('echo "via http://me:pw@proxy.example:80/"; exit 1').catch(
      (e: Error) => e,
    );
    for (const text of [(fault as Error).message, await logged()]) {
      expect(text).toContain('via http://***@***:80/');
      expect(text).not.toContain('pw@');
    }
  });
});

describe('requireTools', () => {
  it('names what is missing, and the packages', async () => {
    await requireTools(['tar', 'sh']);
    const fault = requireTools(['tar', 'no-such-tool', 'newuidmap-of-none']);
    await expect(fault).rejects.toBeInstanceOf(HostError);
    await expect(fault).rejects.toMatchObject({
      code: 'ERR_HOST_TOOL',
      message: 'not installed: no-such-tool, newuidmap-of-none',
      hint: expect.stringContaining('apt-get install no-such-tool'),
    });
  });
});
