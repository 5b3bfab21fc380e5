/** The real agent, bundled as for a guest, as a process on this host behind a unix socket. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentFiles, type AgentFiles } from '../../../guest-agent/bundle.ts';
import type { ExecExit } from '../../../guest-agent/protocol.ts';
import { GuestSession, type ChannelTarget, type GuestExec } from '../../../src/guest/index.ts';
import type { ConnectOptions } from '../../../src/guest/session.ts';
import { SCALE } from '../../scale.ts';

export class LocalAgent implements AsyncDisposable {
  readonly dir: string;
  readonly target: ChannelTarget & { kind: 'unix' };
  readonly process: ChildProcess;

  /**
   * @param program what runs; default: the agent
   * @param as what it is run by: `nsenter …`, say, which becomes it
   */
  static async start(program?: AgentFiles, as: readonly string[] = []): Promise<LocalAgent> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-test-'));
    for (const { name, mode, data } of (program ?? (await agentFiles())).files) {
      await writeFile(join(dir, name), data, { mode });
    }
    const path = join(dir, 'agent.sock');
    const argv = [...as, process.execPath, join(dir, 'agent.cjs'), '--listen-unix', path];
    const child = spawn(argv[0]!, argv.slice(1), { stdio: ['ignore', 'inherit', 'inherit'] });
    return new LocalAgent(dir, path, child);
  }

  private constructor(dir: string, path: string, child: ChildProcess) {
    this.dir = dir;
    this.target = { kind: 'unix', path };
    this.process = child;
  }

  connect(o: Partial<ConnectOptions> = {}): Promise<GuestSession> {
    return GuestSession.connect(this.target, { vmId: 'local', timeoutMs: 20_000 * SCALE, ...o });
  }

  /** A bare connection, for what no session would send. */
  async dial(): Promise<Socket> {
    await (await this.connect()).close(); // it listens
    const socket = connect(this.target.path);
    await once(socket, 'connect');
    return socket;
  }

  /** The agent's resident set. */
  rssMib(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, 'latin1');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) / 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL');
      await once(this.process, 'exit');
    }
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** All that an exec printed, and how it ended. */
export interface Result extends ExecExit {
  readonly stdout: string;
  readonly stderr: string;
  readonly truncatedBytes: number;
}

/** Reads an exec to its end. */
export async function resultOf(exec: GuestExec): Promise<Result> {
  const text = { stdout: '', stderr: '' };
  let truncatedBytes = 0;
  for await (const piece of exec.output) {
    if ('truncatedBytes' in piece) truncatedBytes += piece.truncatedBytes;
    else text[piece.stream] += piece.data.toString('latin1');
  }
  return { ...text, truncatedBytes, ...(await exec.exit) };
}
