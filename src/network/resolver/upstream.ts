/** The servers upstream, as one that answers. */
import { setMaxListeners } from 'node:events';
import { exchange, ExchangeFailure } from './exchange.ts';
import type { Question, UpstreamReply } from './packet.ts';
import { RCODE } from './query.ts';
import type { ServerList } from './servers.ts';

/** How long one server is waited for, the first time around and the second. */
const ATTEMPT_TIMEOUTS_MS = [1_500, 2_500];
/** Shorter than libc's own patience of 5 s, so that the guest hears of the failure. */
const DEADLINE_MS = 4_500;

/** No server answered, or each with an error of its own. */
export class UpstreamFailure extends Error {}

/** Forwards questions; the same question asked twice at once goes up once. */
export class Upstream implements Disposable {
  readonly #servers: ServerList;
  readonly #closing = new AbortController();
  readonly #pending = new Map<string, Promise<UpstreamReply>>();
  #foreignReplies = 0;

  constructor(servers: ServerList) {
    this.#servers = servers;
    // One listener for each query under way: many, and no leak.
    setMaxListeners(0, this.#closing.signal);
  }

  /** Replies that answered none of our questions: somebody upstream may be guessing. */
  get foreignReplies(): number {
    return this.#foreignReplies;
  }

  /** Resolves with a positive or a negative answer. @throws {@link UpstreamFailure} */
  resolve(question: Question): Promise<UpstreamReply> {
    const key = `${question.typeName} ${question.name}`;
    const shared = this.#pending.get(key);
    if (shared !== undefined) return shared;
    const reply = this.#resolve(question).finally(() => this.#pending.delete(key));
    this.#pending.set(key, reply);
    return reply;
  }

  /** Ends what is under way with an error. */
  [Symbol.dispose](): void {
    this.#closing.abort();
  }

  async #resolve(question: Question): Promise<UpstreamReply> {
    const deadline = performance.now() + DEADLINE_MS;
    const failures: string[] = [];
    const answered = new Set<string>();
    for (const attemptMs of ATTEMPT_TIMEOUTS_MS) {
      for (const server of this.#servers.ordered()) {
        const timeoutMs = Math.min(attemptMs, deadline - performance.now());
        const where = `${server.address}:${server.port}`;
        if (timeoutMs <= 0 || this.#closing.signal.aborted || answered.has(where)) continue;
        try {
          const reply = await exchange(server, question, {
            timeoutMs,
            signal: this.#closing.signal,
            onForeign: () => (this.#foreignReplies += 1),
          });
          if (reply.rcode === RCODE.noError || reply.rcode === RCODE.nxDomain) {
            this.#servers.prefer(server);
            return reply;
          }
          answered.add(where);
          failures.push(`${where}: answered with code ${reply.rcode}`);
        } catch (error) {
          if (!(error instanceof ExchangeFailure)) throw error;
          failures.push(error.message);
        }
      }
    }
    throw new UpstreamFailure(failures.join('; ') || 'the resolver closes');
  }
}
