/** The real agent, bundled as for a guest, as a process on this host behind a unix socket. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentFiles } from '../../../guest-agent/bundle.ts';
import { GuestSession } from '../../../src/guest/index.ts';

export class LocalAgent implements AsyncDisposable {
  readonly dir: string;
  readonly path: string;
  readonly process: ChildProcess;

  static async start(): Promise<LocalAgent> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-test-'));
    for (const { name, mode, data } of (await agentFiles()).files) {
      await writeFile(join(dir, name), data, { mode });
    }
    const path = join(dir, 'agent.sock');
    const child = spawn(process.execPath, [join(dir, 'agent.cjs'), '--listen-unix', path], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    return new LocalAgent(dir, path, child);
  }

  private constructor(dir: string, path: string, child: ChildProcess) {
    this.dir = dir;
    this.path = path;
    this.process = child;
  }

  connect(): Promise<GuestSession> {
    return GuestSession.connect(
      { kind: 'unix', path: this.path },
      { vmId: 'local', timeoutMs: 20_000 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL');
      await once(this.process, 'exit');
    }
    await rm(this.dir, { recursive: true, force: true });
  }
}
