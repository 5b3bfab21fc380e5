import { QmpProtocolError } from '../src/errors.ts';
import { MAX_IN_FLIGHT, MAX_OOB_IN_FLIGHT, MAX_WAITING_CALLS } from './limits.ts';
import { excerpt } from './messages.ts';

/** The answer to a command. */
export type Reply = { ok: true; value: unknown } | { ok: false; errorClass: string; desc: string };

/** One command between its call and its answer. */
export interface Call {
  readonly id: string;
  readonly oob: boolean;
  /** The line to send. */
  readonly line: string;
  readonly onReply: (reply: Reply) => void;
  /** The connection ended first. */
  readonly onFailure: () => void;
}

/**
 * Who waits for which answer. Answers carry the id of their command and may come in any order
 * (out-of-band ones do).
 *
 * In-band commands past {@link MAX_IN_FLIGHT} wait here, in order. A call that its owner gave up
 * keeps its place among those in flight until QEMU answers: QEMU still works on it, and the late
 * answer is then known for what it is. So this table can never outgrow its limits.
 */
export class CallTable {
  readonly #send: (line: string) => void;
  /** Sent and not answered; undefined for an abandoned one. */
  readonly #inBand = new Map<string, Call | undefined>();
  readonly #outOfBand = new Map<string, Call | undefined>();
  readonly #waiting = new Map<string, Call>();

  constructor(send: (line: string) => void) {
    this.#send = send;
  }

  /**
   * Sends a call, or queues it.
   *
   * @throws QmpProtocolError where a limit is reached; the call is then not kept.
   */
  start(call: Call): void {
    if (call.oob) {
      if (this.#outOfBand.size >= MAX_OOB_IN_FLIGHT) {
        throw tooMany(`${MAX_OOB_IN_FLIGHT} out-of-band commands are in flight`);
      }
      this.#outOfBand.set(call.id, call);
      this.#send(call.line);
    } else if (this.#waiting.size === 0 && this.#inBand.size < MAX_IN_FLIGHT) {
      this.#inBand.set(call.id, call);
      this.#send(call.line);
    } else {
      if (this.#waiting.size >= MAX_WAITING_CALLS) {
        throw tooMany(`${MAX_WAITING_CALLS} commands are waiting to be sent`);
      }
      this.#waiting.set(call.id, call);
    }
  }

  /** Forgets a call: it is never sent where it still waits, else its answer is dropped. */
  abandon({ id }: Call): void {
    if (this.#waiting.delete(id)) return;
    if (this.#inBand.has(id)) this.#inBand.set(id, undefined);
    if (this.#outOfBand.has(id)) this.#outOfBand.set(id, undefined);
  }

  /**
   * Hands an answer to its call, then sends the next that waits.
   *
   * @throws QmpProtocolError where no command in flight has this id.
   */
  settle(replyId: unknown, reply: Reply): void {
    const id = replyId ?? this.#idOfUnparsed(reply);
    const table = typeof id === 'string' ? this.#tableOf(id) : undefined;
    if (typeof id !== 'string' || table === undefined) throw unknownId(id, reply);
    const call = table.get(id);
    table.delete(id);
    this.#sendNext();
    call?.onReply(reply);
  }

  /** Rejects all that is pending. */
  failAll(): void {
    const calls = [
      ...this.#inBand.values(),
      ...this.#outOfBand.values(),
      ...this.#waiting.values(),
    ];
    this.#inBand.clear();
    this.#outOfBand.clear();
    this.#waiting.clear();
    for (const call of calls) call?.onFailure();
  }

  #tableOf(id: string): Map<string, Call | undefined> | undefined {
    return [this.#inBand, this.#outOfBand].find((table) => table.has(id));
  }

  /**
   * QEMU answers without an id where it cannot parse a command (a lone surrogate, more than 1024
   * levels of nesting). Whose that is, is known only where one alone is in flight.
   */
  #idOfUnparsed(reply: Reply): string | undefined {
    const [id, ...others] = [...this.#inBand.keys(), ...this.#outOfBand.keys()];
    return reply.ok || others.length > 0 ? undefined : id;
  }

  #sendNext(): void {
    for (const [id, call] of this.#waiting) {
      if (this.#inBand.size >= MAX_IN_FLIGHT) return;
      this.#waiting.delete(id);
      this.#inBand.set(id, call);
      this.#send(call.line);
    }
  }
}

function tooMany(what: string): QmpProtocolError {
  return new QmpProtocolError(`QMP: ${what}`, {
    hint: 'Await some of the earlier commands first; if none of them is ever answered, QEMU hangs.',
  });
}

function unknownId(id: unknown, reply: Reply): QmpProtocolError {
  const detail = reply.ok ? '' : ` (${reply.errorClass}: ${excerpt(reply.desc)})`;
  const hint =
    id === undefined
      ? 'QEMU could not parse one of several commands in flight: look for lone surrogates in strings, and for deep nesting.'
      : 'Check that this is a QMP monitor of QEMU, and that nothing else writes to it.';
  const which = id === undefined ? 'without an id' : `with an unknown id ${quoteId(id)}`;
  return new QmpProtocolError(`QMP answer ${which}${detail}`, { hint });
}

/** Any JSON may stand there; what is no plain value is not worth a look, and may be nested deeply. */
function quoteId(id: unknown): string {
  return typeof id === 'object' ? '[object]' : excerpt(JSON.stringify(id));
}
