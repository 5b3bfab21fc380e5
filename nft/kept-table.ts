/**
 * A table that `nft flush ruleset` of others leaves where it is: it has an owner (nft(8), flag `owner`), a process that is
 * the only one that may change it, and goes with that process, however it ends. It has one rule: what comes from a tap of
 * ours and has not the mark of both our tables is dropped. So it says nothing where they are, and stands in for them where
 * they are not, whatever source a packet names.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { NetworkRulesError, TimeoutError } from '../src/errors.ts';
import { readFailure } from './failure.ts';
import { MARK_BASE, MARK_MASK } from './marks.ts';
import { TABLE, TAP_GROUP } from './names.ts';
import { runNft, startNft } from './run.ts';

/** nft takes some ms; on an emulated machine many times that. */
const DEFAULT_TIMEOUT_MS = 30_000;
const POLL_MS = 10;
/** From the end of its input to its own. */
const END_MS = 1_000;
const MAX_STDERR_CHARS = 4_096;

/** What nft is told, in a line: just behind our own chains of the same hooks, which have marked what they let through. Pure. */
export function keptTableText(name: string): string {
  const rule = `iifgroup ${TAP_GROUP} meta mark & ${hex(MARK_MASK)} != ${hex(MARK_BASE)} drop`;
  const chain = (hook: string) =>
    `chain ${hook} { type filter hook ${hook} priority filter - 4; policy accept; ${rule}; };`;
  return `add table inet ${name} { flags owner; ${chain('forward')} ${chain('input')} }`;
}

/** See above. Held by a child, `nft -i`, which ends with its input: with this process, too. */
export class KeptTable implements AsyncDisposable {
  readonly #command: readonly string[];
  #child: ChildProcess | undefined;
  /** Ends with what was asked for last: one thing after the other, in the order in which it was asked for. Never rejects. */
  #last: Promise<void> = Promise.resolve();

  /** @param o.command how to call nft; default `['nft']` */
  constructor(o: { command?: readonly string[] } = {}) {
    this.#command = o.command ?? ['nft'];
  }

  /**
   * Resolves when the table is there; at once where it is. One whose child has died is made anew.
   * @throws HostError no nft, no permission; NetworkRulesError nft or the kernel cannot; TimeoutError (30 s)
   */
  hold(): Promise<void> {
    return this.#next(async () => {
      if (this.#child === undefined) await this.#begin();
    });
  }

  /** It is gone when this resolves. No error where it is not there. */
  release(): Promise<void> {
    return this.#next(async () => {
      const child = this.#child;
      this.#child = undefined;
      if (child !== undefined) await end(child);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  #next(step: () => Promise<void>): Promise<void> {
    const done = this.#last.then(step);
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #begin(): Promise<void> {
    // Another name each time: one that is about to go with its process is not taken for this one.
    const name = `${TABLE}_keep_${randomBytes(4).toString('hex')}`;
    const child = startNft(this.#command);
    const facts = watch(child);
    child.stdin?.on('error', () => undefined); // told by its end
    child.stdin?.write(`${keptTableText(name)}\n`);
    try {
      await this.#awaitTable(name, facts);
    } catch (error) {
      await end(child);
      throw error;
    }
    if (facts.hasEnded) return; // killed by somebody: whoever looks again finds it gone
    this.#child = child;
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined;
    });
  }

  async #awaitTable(name: string, facts: ChildFacts): Promise<void> {
    const list = { nftables: [{ list: { table: { family: 'inet', name } } }] };
    const deadline = performance.now() + DEFAULT_TIMEOUT_MS;
    for (;;) {
      if (facts.hasEnded || facts.stderr !== '') throw readFailure(facts);
      try {
        await runNft(this.#command, JSON.stringify(list));
        return;
      } catch (error) {
        const isMissing = error instanceof NetworkRulesError && error.reason === 'missing';
        if (!isMissing) throw error;
      }
      if (performance.now() > deadline) throw new TimeoutError('nft -i', DEFAULT_TIMEOUT_MS);
      await delay(POLL_MS);
    }
  }
}

interface ChildFacts {
  stderr: string;
  hasEnded: boolean;
  /** It could not be started. */
  code?: string | undefined;
}

function watch(child: ChildProcess): ChildFacts {
  const facts: ChildFacts = { stderr: '', hasEnded: false };
  child.on('error', ({ code }: NodeJS.ErrnoException) =>
    Object.assign(facts, { code, hasEnded: true }),
  );
  child.once('exit', () => (facts.hasEnded = true));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    facts.stderr = (facts.stderr + text).slice(0, MAX_STDERR_CHARS);
  });
  return facts;
}

/** With its input, as it does by itself; by force where it does not. */
async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.stdin?.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
  await gone;
  clearTimeout(timer);
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}
