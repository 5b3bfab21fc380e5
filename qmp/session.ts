import { QmpProtocolError } from '../src/errors.ts';
import type { QemuVersion, RawEvent, ServerMessage } from './messages.ts';
import { parseMessage } from './messages.ts';

/**
 * Where a session stands:
 *
 * ```
 * greeting ──greeting──▶ negotiating ──answer──▶ ready
 *     └──────────────────────┴── end() ───────────┴──▶ ended
 * ```
 */
export type SessionState = 'greeting' | 'negotiating' | 'ready' | 'ended';

/** The answer to a command, with its id. */
export type ReplyMessage = Extract<ServerMessage, { kind: 'return' | 'error' }>;

/** What a {@link Session} tells its owner. */
export interface SessionHandlers {
  /** QEMU greeted; the owner now sends `qmp_capabilities`. */
  onGreeting(version: QemuVersion, capabilities: readonly string[]): void;
  onReply(reply: ReplyMessage): void;
  onEvent(event: RawEvent): void;
}

/**
 * The order in which messages may come, apart from the socket that they come over. QEMU greets
 * first and once; before the negotiation it takes no other command. Events may come a moment before
 * the answer that makes the session ready: another thread of QEMU may send one in between. One that
 * comes before the greeting was meant for the client before us (the monitor still stood in its command
 * mode when it was written; seen with QEMU 10), and is dropped.
 * Source: docs/interop/qmp-spec, "Capabilities Negotiation"; monitor/qmp-cmds-control.c.
 */
export class Session {
  #state: SessionState = 'greeting';
  readonly #handlers: SessionHandlers;

  constructor(handlers: SessionHandlers) {
    this.#handlers = handlers;
  }

  get state(): SessionState {
    return this.#state;
  }

  /**
   * Takes one line from QEMU. Lines after the end are ignored.
   *
   * @throws QmpProtocolError where the line is no message, or one that cannot come now.
   */
  receive(line: string): void {
    if (this.#state === 'ended') return;
    const message = parseMessage(line);
    if (message.kind === 'event' && this.#state === 'greeting') return;
    if ((message.kind === 'greeting') !== (this.#state === 'greeting')) {
      throw outOfOrder(message, this.#state);
    }
    switch (message.kind) {
      case 'greeting':
        this.#state = 'negotiating';
        this.#handlers.onGreeting(message.version, message.capabilities);
        break;
      case 'return':
        // The only command that QEMU takes before it is ready is qmp_capabilities.
        this.#state = 'ready';
        this.#handlers.onReply(message);
        break;
      case 'error':
        this.#handlers.onReply(message);
        break;
      case 'event':
        this.#handlers.onEvent(message.event);
        break;
    }
  }

  /** Nothing more is taken. */
  end(): void {
    this.#state = 'ended';
  }
}

function outOfOrder(message: ServerMessage, state: SessionState): QmpProtocolError {
  const awaited = {
    greeting: 'the greeting',
    negotiating: 'the answer to qmp_capabilities',
    ready: 'an answer or an event',
  };
  const expected = state === 'ended' ? 'nothing' : awaited[state];
  return new QmpProtocolError(`QMP: ${message.kind} came where ${expected} was due`, {
    hint: 'Check that the socket is a QMP monitor of QEMU, and not a guest agent or an HMP monitor.',
  });
}
