import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import type { QmpConnectOptions } from '../../../qmp/index.ts';
import { QmpConnectError } from '../../../src/errors.ts';
import { SCALE } from '../../scale.ts';

const CONNECT_TRIES = 200 * SCALE;
const CONNECT_PAUSE_MS = 50;

/** A real QEMU with a QMP socket, for one test file; killed and removed when disposed. */
export class TestQemu implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly dir: string;
  readonly path: string;

  private constructor(process: ChildProcess, dir: string, path: string) {
    this.process = process;
    this.dir = dir;
    this.path = path;
  }

  /** Starts QEMU without a guest; `-M none` where no other arguments are given. */
  static async start(
    args: (dir: string) => readonly string[] = () => ['-M', 'none'],
  ): Promise<TestQemu> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-test-'));
    const path = join(dir, 'qmp.sock');
    const fixed = ['-nodefaults', '-no-user-config', '-display', 'none'];
    const monitor = ['-qmp', `unix:${path},server=on,wait=off`];
    const child = spawn('qemu-system-x86_64', [...args(dir), ...fixed, ...monitor], {
      cwd: dir,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await once(child, 'spawn');
    return new TestQemu(child, dir, path);
  }

  /** Connects; tries again until QEMU has made its socket. */
  async connect(options: Partial<QmpConnectOptions> = {}): Promise<QmpClient> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await QmpClient.connect({ path: this.path, ...options });
      } catch (error) {
        const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
        const isEarly = code === 'ENOENT' || code === 'ECONNREFUSED';
        if (!(error instanceof QmpConnectError) || !isEarly || attempt === CONNECT_TRIES)
          throw error;
        await delay(CONNECT_PAUSE_MS);
      }
    }
  }

  /** Stops the process, so that it answers nothing. */
  async freeze(): Promise<void> {
    this.process.kill('SIGSTOP');
    await expect.poll(() => this.#state()).toBe('T');
  }

  /** Lets it run again. */
  thaw(): void {
    this.process.kill('SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const exited = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await exited;
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  /** The process state as /proc tells it; proc(5). */
  async #state(): Promise<string> {
    const stat = await readFile(`/proc/${this.process.pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] ?? '';
  }
}
