/** The host's end of one exec. */
import type { ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { Writable } from 'node:stream';
import { ByteCollector } from '../../guest-agent/byte-collector.ts';
import { FRAME, FrameError, FrameReader } from '../../guest-agent/frames.ts';
import type { ExecExit } from '../../guest-agent/protocol.ts';
import { LIMITS } from '../../guest-agent/protocol.ts';
import { GuestDisconnectedError, type GuestError } from '../errors.ts';
import { parseExit, parseStarted } from './replies.ts';
import {
  brokenStream,
  DEFAULT_CALL_TIMEOUT_MS,
  protocolError,
  refusal,
  type RequestContext,
} from './request.ts';
import { traceAgent } from './transcript.ts';

/** A piece of an exec's output, or the mark of a gap in it. */
export type GuestOutput =
  | { readonly stream: 'stdout' | 'stderr'; readonly data: Buffer }
  | { readonly truncatedBytes: number };

/** An exec as its session sees it. Whoever holds it has to read {@link output} or {@link detach}: back-pressure reaches the process. */
export interface GuestExec {
  readonly id: string;
  readonly pid: number;
  /** Back-pressured; `end()` is EOF. Undefined where the spec asked for none, or after an attach. */
  readonly stdin: Writable | undefined;
  /** For one reader; ends when the exec does, throws where the session ends first. */
  readonly output: AsyncIterable<GuestOutput>;
  /**
   * Rejects with a GuestError where the session ends first. Settles once all output has arrived: not
   * before it is read, where there is more of it than is kept for the reader.
   */
  readonly exit: Promise<ExecExit>;
  /** Signals the whole tree. Default SIGKILL. */
  kill(signal?: string): Promise<void>;
  /** Stops listening; the exec runs on where its spec says `keep`. */
  detach(): Promise<void>;
}

/** Output waiting for its reader, at most: then the stream pauses, and its window holds the guest back. */
const QUEUE_BYTES = 1024 * 1024;
/** Output frames without payload in a row: a guest that sends these only burns time. */
const MAX_EMPTY_FRAMES = 1000;

/** Reads an exec's stream of frames. */
export class ExecStream implements GuestExec {
  /** Received so far. */
  stdoutBytes = 0;
  stderrBytes = 0;
  /** {@link kill} was called. */
  killed = false;
  id = '';
  pid = 0;
  stdin: Writable | undefined;
  readonly exit: Promise<ExecExit>;
  readonly #stream: ClientHttp2Stream;
  readonly #context: RequestContext;
  readonly #kill: (id: string, signal: string) => Promise<void>;
  readonly #reader: FrameReader;
  #queue: GuestOutput[] = [];
  #queuedBytes = 0;
  #wake: (() => void) | undefined;
  #over = false;
  #error: Error | undefined;
  #result: ExecExit | undefined;
  #detached = false;
  #started: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #settleExit: { resolve: (exit: ExecExit) => void; reject: (error: Error) => void } | undefined;
  #status = 0;
  readonly #refusal = new ByteCollector();
  #emptyFrames = 0;

  constructor(
    context: RequestContext,
    stream: ClientHttp2Stream,
    kill: (id: string, signal: string) => Promise<void>,
  ) {
    this.#context = context;
    this.#stream = stream;
    this.#kill = kill;
    this.#reader = new FrameReader({
      output: (type, data) => this.#output(type, data),
      frame: (type, payload) => this.#control(type, payload),
    });
    this.exit = new Promise((resolve, reject) => {
      this.#settleExit = { resolve, reject };
    });
    this.exit.catch(() => undefined); // who only reads output hears of it there
    stream.once('response', (headers: IncomingHttpHeaders & { ':status'?: number }) => {
      this.#status = headers[':status'] ?? 0;
      // Not before: Node announces headers a tick late, after the data that came with them.
      stream.on('data', (chunk: Buffer) => this.#data(chunk));
    });
    // The reply is whole. What is left of our stdin nobody reads, but an open body keeps a stream open.
    stream.once('end', () => stream.close());
    stream.once('close', () => void this.#closed());
  }

  /** Resolves with the first frame. */
  started(): Promise<this> {
    return new Promise((resolve, reject) => {
      this.#started = { resolve: () => resolve(this), reject };
    });
  }

  get output(): AsyncIterable<GuestOutput> {
    return { [Symbol.asyncIterator]: () => this.#read() };
  }

  /** Gives the exec a stdin that is the request's own body. */
  openStdin(): void {
    this.stdin = requestBody(this.#context, this.#stream);
  }

  async kill(signal = 'SIGKILL'): Promise<void> {
    this.killed = true;
    await this.#kill(this.id, signal);
  }

  /**
   * Whoever asked for it gave up before it had a name, by which anybody could end it later: so it ends
   * as soon as it has one.
   */
  abandon(): void {
    this.#detached = true;
    const giveUp = setTimeout(() => void this.detach(), DEFAULT_CALL_TIMEOUT_MS);
    giveUp.unref();
    this.#stream.once('close', () => clearTimeout(giveUp));
    this.#started = {
      resolve: () => void this.kill().catch(() => undefined),
      reject: () => undefined,
    };
  }

  detach(): Promise<void> {
    this.#detached = true;
    this.#queue = [];
    // Not `close`: it ends the request's body first, and that would be the end of the command's stdin.
    this.#stream.destroy(new Error('detached'));
    return new Promise((resolve) => {
      if (this.#over) resolve();
      else this.#stream.once('close', resolve);
    });
  }

  async *#read(): AsyncGenerator<GuestOutput> {
    for (;;) {
      const queue = this.#queue;
      this.#queue = [];
      this.#queuedBytes = 0;
      this.#stream.resume();
      yield* queue;
      if (this.#queue.length > 0) continue;
      if (this.#over) {
        if (this.#error && !this.#detached) throw this.#error;
        return;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #data(chunk: Buffer): void {
    this.#context.budget.delivered(chunk.length);
    try {
      if (this.#status === 200) this.#reader.push(chunk);
      else this.#refused(chunk);
    } catch (error) {
      const what = error instanceof FrameError ? error.message : 'a frame could not be read';
      this.#fail(protocolError(this.#context, what));
    }
  }

  #refused(chunk: Buffer): void {
    this.#refusal.push(chunk);
    if (this.#refusal.length > LIMITS.frameBytes) throw new FrameError('endless refusal');
  }

  #output(type: 2 | 3, data: Buffer): void {
    if (this.id === '') throw new FrameError('output before the exec was started');
    if (this.#result) throw new FrameError('output after the exec ended');
    this.#emptyFrames = data.length === 0 ? this.#emptyFrames + 1 : 0;
    if (this.#emptyFrames > MAX_EMPTY_FRAMES) throw new FrameError('empty frames without end');
    if (type === FRAME.stdout) this.stdoutBytes += data.length;
    else this.stderrBytes += data.length;
    const name = type === FRAME.stdout ? 'stdout' : 'stderr';
    traceAgent(this.#context.vmId, 'in', () => `exec ${this.id} ${name} (${data.length} bytes)`);
    if (this.#detached || data.length === 0) return;
    const own = data.length < SMALL_PIECE_BYTES ? Buffer.from(data) : data;
    this.#enqueue({ stream: name, data: own }, data.length);
  }

  #enqueue(item: GuestOutput, bytes: number): void {
    this.#queue.push(item);
    this.#queuedBytes += bytes + PIECE_OVERHEAD_BYTES;
    if (this.#queuedBytes > QUEUE_BYTES) this.#stream.pause();
    this.#notify();
  }

  #control(type: number, payload: Buffer): void {
    if (type === FRAME.started) {
      if (this.id !== '') throw new FrameError('the exec was started twice');
      ({ id: this.id, pid: this.pid } = parseStarted(payload));
      traceAgent(this.#context.vmId, 'in', () => `exec ${this.id} started, pid ${this.pid}`);
      this.#started?.resolve();
      this.#started = undefined;
    } else if (this.id === '' || this.#result) {
      throw new FrameError(`frame of type ${type} out of its place`);
    } else if (type === FRAME.truncated) {
      if (payload.length !== 8) throw new FrameError('a mark of truncation has 8 bytes');
      this.#enqueue({ truncatedBytes: Number(payload.readBigUInt64BE()) }, payload.length);
    } else if (type === FRAME.exit) {
      this.#finished(parseExit(payload));
    } else {
      throw new FrameError(`frame of type ${type} out of its place`);
    }
  }

  #fail(error: GuestError): void {
    this.#error ??= error;
    this.#context.fail(error);
  }

  /** The exec's end came; nothing is waited for any more, whether the guest ends the stream or not. */
  #finished(exit: ExecExit): void {
    traceAgent(this.#context.vmId, 'in', () => `exec ${this.id} ended ${JSON.stringify(exit)}`);
    this.#result = exit;
    this.#over = true;
    this.#settleExit?.resolve(exit);
    this.stdin?.destroy();
    setImmediate(() => this.#stream.close());
    this.#notify();
  }

  async #closed(): Promise<void> {
    this.stdin?.destroy();
    if (this.#over) return;
    this.#error ??= await this.#whyClosed();
    this.#over = true;
    this.#started?.reject(this.#error);
    this.#settleExit?.reject(this.#error);
    this.#notify();
  }

  async #whyClosed(): Promise<GuestError> {
    if (this.#detached) {
      return new GuestDisconnectedError('nobody listens to the exec any more', {
        vmId: this.#context.vmId,
        hint: 'Attach to it again, if it still runs.',
      });
    }
    if (this.#refusal.length === 0) return brokenStream(this.#context, this.#stream);
    try {
      const value = JSON.parse(this.#refusal.bytes().toString('utf8')) as unknown;
      return refusal(this.#context, value, 'the exec');
    } catch {
      return protocolError(this.#context, 'the refusal of the exec is not JSON');
    }
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** A piece's objects; a million one-byte pieces are not a megabyte. */
const PIECE_OVERHEAD_BYTES = 256;
/** Shorter pieces are copied, so that none keeps alive the 64 KiB that it may be cut from. */
const SMALL_PIECE_BYTES = 4096;
/** Written ahead of the guest, at most. */
const STDIN_BUFFER_BYTES = 512 * 1024;

/** A Writable over a request's body: what the process does not read any more is dropped without an error. */
function requestBody(context: RequestContext, stream: ClientHttp2Stream): Writable {
  return new Writable({
    highWaterMark: STDIN_BUFFER_BYTES,
    write(chunk: Buffer, _encoding, done) {
      if (stream.destroyed || stream.writableEnded) {
        done();
        return;
      }
      context.budget.sent(chunk.length);
      traceAgent(context.vmId, 'out', () => `stdin (${chunk.length} bytes)`);
      stream.write(chunk, () => done());
    },
    final(done) {
      stream.end();
      done();
    },
  });
}
