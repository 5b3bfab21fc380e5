/** The pipes between the agent and the processes it starts. */
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { closeSync, fchownSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { libc, type Libc } from './libc.ts';
import { RequestError } from './request-error.ts';

/** stdin, stdout and stderr of one process that is about to be started. */
export interface Stdio {
  /** Makes the user their owner: who is not may not open them by name, as `> /dev/stderr` does. */
  giveTo(user: { readonly uid: number; readonly gid: number }): void;
  /** For `spawn`. */
  readonly options: Extract<StdioOptions, readonly unknown[]>;
  /** Once the process runs: closes its ends here, gives ours. */
  attach(child: ChildProcess): Attached;
  /** Where it could not be started: closes all. */
  abandon(): void;
}

/** Our ends of a process's stdio. */
export interface Attached {
  readonly stdin: Writable | undefined;
  readonly stdout: Readable;
  readonly stderr: Readable;
}

/** Capacity of the pipes: Linux's default for what a user may ask for (pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;

interface Pipe {
  readonly theirFd: number;
  readonly ours: Socket;
}

/**
 * Makes the pipes of the next processes ahead of time. Under emulation their calls by ffi and Node's
 * sockets on them take a third as long as the spawn itself.
 *
 * They are real pipes. Node's own stdio are sockets, which a program cannot open again by the name
 * /dev/stdout or /dev/stderr; they serve only where ffi cannot be loaded (a guest without glibc).
 */
export class StdioStock {
  #libc: Promise<Libc | undefined> | undefined;
  readonly #inputs: Pipe[] = [];
  readonly #outputs: Pipe[] = [];

  /** Fills the stock for so many processes. */
  async prepare(count: number): Promise<void> {
    const calls = await this.#load();
    if (!calls) return;
    while (this.#inputs.length < count) this.#inputs.push(makeInput(calls));
    while (this.#outputs.length < 2 * count) this.#outputs.push(makeOutput(calls));
  }

  /** Takes what one process needs; made now where the stock is empty. */
  async take(withStdin: boolean): Promise<Stdio> {
    const calls = await this.#load();
    if (!calls) return nodeStdio(withStdin);
    const input = withStdin ? (this.#inputs.pop() ?? makeInput(calls)) : undefined;
    const output = this.#outputs.pop() ?? makeOutput(calls);
    const errors = this.#outputs.pop() ?? makeOutput(calls);
    return pipeStdio(input, output, errors);
  }

  #load(): Promise<Libc | undefined> {
    return (this.#libc ??= libc().catch(() => undefined));
  }
}

function makeInput(calls: Libc): Pipe {
  const { readFd, writeFd } = calls.pipe(PIPE_BYTES);
  return { theirFd: readFd, ours: new Socket({ fd: writeFd, readable: false, writable: true }) };
}

function makeOutput(calls: Libc): Pipe {
  const { readFd, writeFd } = calls.pipe(PIPE_BYTES);
  return { theirFd: writeFd, ours: new Socket({ fd: readFd, readable: true, writable: false }) };
}

function pipeStdio(input: Pipe | undefined, output: Pipe, errors: Pipe): Stdio {
  const closeTheirs = () => {
    for (const pipe of [input, output, errors]) if (pipe) closeSync(pipe.theirFd);
  };
  return {
    giveTo({ uid, gid }) {
      if (uid === process.getuid?.()) return;
      for (const pipe of [input, output, errors]) if (pipe) fchownSync(pipe.theirFd, uid, gid);
    },
    options: [input?.theirFd ?? 'ignore', output.theirFd, errors.theirFd],
    attach() {
      closeTheirs();
      return { stdin: input?.ours, stdout: output.ours, stderr: errors.ours };
    },
    abandon() {
      closeTheirs();
      for (const pipe of [input, output, errors]) pipe?.ours.destroy();
    },
  };
}

function nodeStdio(withStdin: boolean): Stdio {
  return {
    giveTo: () => undefined, // sockets cannot be opened by name
    options: [withStdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    attach({ stdin, stdout, stderr }) {
      if (!stdout || !stderr) throw new RequestError('EIO', 'no pipes to the process', 500);
      return { stdin: stdin ?? undefined, stdout, stderr };
    },
    abandon: () => undefined,
  };
}
