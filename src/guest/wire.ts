/** HTTP/2 on a channel, and why it ended. */
import {
  connect as http2Connect,
  type ClientHttp2Session,
  type ClientHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import {
  GUEST_WINDOW_BYTES,
  HOST_WINDOW_BYTES,
  HTTP2_OPTIONS,
} from '../../guest-agent/protocol.ts';
import { GuestDisconnectedError, type GuestError } from '../errors.ts';
import type { Dialed } from './dial.ts';
import { protocolError, type RequestContext } from './request.ts';
import { TrafficBudget } from './traffic-budget.ts';

/** The HTTP/2 connection and the reason of its end. */
export class Wire implements RequestContext {
  readonly http2: ClientHttp2Session;
  readonly vmId: string;
  readonly closed: Promise<Error | undefined>;
  readonly budget: TrafficBudget;
  #reason: GuestError | undefined;
  #byUs = false;
  #streams = 0;

  constructor({ socket }: Dialed, vmId: string) {
    this.vmId = vmId;
    this.budget = new TrafficBudget(() => {
      this.fail(protocolError(this, 'it floods the channel with what nobody asked for'));
    });
    this.http2 = http2Connect('http://guest', {
      ...HTTP2_OPTIONS,
      createConnection: () => new EagerSocket(socket, (bytes) => this.budget.received(bytes)),
    });
    this.http2.setLocalWindowSize(HOST_WINDOW_BYTES);
    this.http2.on('error', (error: NodeJS.ErrnoException) => {
      const broken = error.code?.startsWith('ERR_HTTP2') === true;
      this.#reason ??= broken ? protocolError(this, error.message) : this.#lost(error);
    });
    this.http2.on('goaway', (code) =>
      this.fail(protocolError(this, `it said goodbye (code ${code})`)),
    );
    this.http2.on('stream', (stream) => stream.close()); // pushed: never asked for
    this.closed = new Promise((resolve) => {
      this.http2.once('close', () => {
        socket.destroy();
        resolve(this.#byUs ? undefined : this.lostError());
      });
    });
  }

  track(stream: ClientHttp2Stream): void {
    this.#streams += 1;
    this.budget.opened();
    stream.once('close', () => (this.#streams -= 1));
  }

  /** Whether nobody waits for anything. */
  get idle(): boolean {
    return this.#streams === 0;
  }

  lostError(): GuestError {
    this.#reason ??= this.#lost(undefined);
    return this.#reason;
  }

  fail(error: GuestError): void {
    this.#reason ??= error;
    this.http2.destroy();
  }

  close(): void {
    this.#byUs = true;
    this.http2.destroy();
  }

  #lost(cause: unknown): GuestError {
    const text = this.#byUs
      ? 'the session was closed'
      : 'the connection to the guest agent was lost';
    const hint = 'Connect again; the guest may have restarted its agent, or be gone.';
    return new GuestDisconnectedError(text, { vmId: this.vmId, hint, cause });
  }
}

/**
 * What waits for the socket, at most. Beyond what an honest guest allows us to send, with room for
 * frame heads, so that only a guest that lies about its window ever meets it.
 */
const MAX_QUEUED_BYTES = 2 * GUEST_WINDOW_BYTES;

/**
 * A socket that says "written" as soon as it has the bytes. Node's HTTP/2 stops reading as long as a
 * write is under way; a guest that waits for us to read before it reads would then wait for ever.
 */
export class EagerSocket extends Duplex {
  readonly #socket: Socket;

  /** @param onRead told how many bytes came, before they are passed on */
  constructor(socket: Socket, onRead: (bytes: number) => void) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      onRead(chunk.length);
      if (!this.push(chunk)) socket.pause();
    });
    socket.pause(); // until somebody reads
    socket.once('end', () => this.push(null));
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#socket.write(chunk);
    this.#taken(done);
  }

  override _writev(chunks: { chunk: unknown }[], done: (error?: Error) => void): void {
    this.#socket.cork();
    for (const { chunk } of chunks) this.#socket.write(chunk as Buffer);
    this.#socket.uncork();
    this.#taken(done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #taken(done: (error?: Error) => void): void {
    if (this.#socket.writableLength <= MAX_QUEUED_BYTES) done();
    else this.#socket.once('drain', () => done());
  }
}
