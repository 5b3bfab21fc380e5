/** HTTP/2 on a channel, and why it ended. */
import {
  connect as http2Connect,
  type ClientHttp2Session,
  type ClientHttp2Stream,
} from 'node:http2';
import { GoawayWatch, NO_ERROR, PREFACE_BYTES } from '../../guest-agent/goaway-watch.ts';
import { BREAK_TAIL_BYTES, isWireBreak, lastBytes } from '../../guest-agent/preamble.ts';
import { HOST_WINDOW_BYTES, HTTP2_OPTIONS } from '../../guest-agent/protocol.ts';
import { GuestDisconnectedError, type GuestError } from '../errors.ts';
import type { Dialed } from './dial.ts';
import { EagerSocket } from './eager-socket.ts';
import { http2ErrorName } from './http2-errors.ts';
import { protocolError, type RequestContext } from './request.ts';
import { TrafficBudget } from './traffic-budget.ts';

/** Why a wire ended that nobody here has closed, where that is known; it must not take long. */
export type WhyLost = () => Promise<GuestError | undefined>;

/** The HTTP/2 connection and the reason of its end. */
export class Wire implements RequestContext {
  readonly http2: ClientHttp2Session;
  readonly vmId: string;
  readonly closed: Promise<GuestError | undefined>;
  readonly budget: TrafficBudget;
  readonly #channel: EagerSocket;
  /** The last bytes that came. */
  #tail: Buffer = Buffer.alloc(0);
  #reason: GuestError | undefined;
  #byUs = false;
  #streams = 0;

  /** @param whyLost what may know better than the wire why it ended */
  constructor({ socket }: Dialed, vmId: string, whyLost?: WhyLost) {
    this.vmId = vmId;
    this.budget = new TrafficBudget(() => {
      this.fail(protocolError(this, 'it floods the channel with what nobody asked for'));
    });
    const goaway = new GoawayWatch(PREFACE_BYTES, (code) => this.#gaveUp(code));
    this.#channel = new EagerSocket(socket);
    this.#channel.onReceived = (chunk) => {
      this.budget.received(chunk.length);
      this.#tail = lastBytes(this.#tail, chunk, BREAK_TAIL_BYTES);
    };
    this.#channel.onSent = (chunk) => goaway.push(chunk);
    this.http2 = http2Connect('http://guest', {
      ...HTTP2_OPTIONS,
      createConnection: () => this.#channel,
    });
    this.http2.setLocalWindowSize(HOST_WINDOW_BYTES);
    this.http2.on('error', (error: NodeJS.ErrnoException) => {
      const broken = error.code?.startsWith('ERR_HTTP2') === true;
      this.#reason ??= broken ? this.#broken(error.message) : this.#lost(error);
    });
    this.http2.on('goaway', (code: number) =>
      this.fail(protocolError(this, `it said goodbye (${http2ErrorName(code)})`)),
    );
    this.http2.on('stream', (stream) => stream.close()); // pushed: never asked for
    this.closed = new Promise<void>((resolve) => {
      this.http2.once('close', () => {
        this.#channel.destroy();
        resolve();
      });
    }).then(async () => {
      if (this.#byUs) return undefined;
      this.#reason = (await whyLost?.().catch(() => undefined)) ?? this.lostError();
      return this.#reason;
    });
  }

  track(stream: ClientHttp2Stream): void {
    this.#streams += 1;
    this.budget.opened();
    stream.once('close', () => (this.#streams -= 1));
    // The agent has no interim replies, and a guest could send them without end.
    stream.once('headers', () => this.fail(protocolError(this, 'a reply has several heads')));
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
    this.#destroy();
  }

  close(): void {
    this.#byUs = true;
    this.#destroy();
  }

  /** The channel too: after a goodbye HTTP/2 would wait for the guest to close it. */
  #destroy(): void {
    this.http2.destroy();
    this.#channel.destroy();
  }

  /** Our own end of HTTP/2 found the guest's frames wrong. Off its stack, as it is about to send. */
  #gaveUp(code: number): void {
    if (code === NO_ERROR || this.http2.destroyed) return;
    this.#reason ??= this.#broken(`it broke HTTP/2 (${http2ErrorName(code)})`);
    setImmediate(() => this.#destroy());
  }

  /** What came was no HTTP/2: sent by a guest that is mad or bad, or by the next agent. */
  #broken(what: string): GuestError {
    return isWireBreak(this.#tail) ? this.#lost(undefined) : protocolError(this, what);
  }

  #lost(cause: unknown): GuestError {
    const text = this.#byUs
      ? 'the session was closed'
      : isWireBreak(this.#tail)
        ? 'the guest agent was restarted'
        : 'the connection to the guest agent was lost';
    const hint = 'Connect again; the guest may have restarted its agent, or be gone.';
    return new GuestDisconnectedError(text, { vmId: this.vmId, hint, cause });
  }
}
