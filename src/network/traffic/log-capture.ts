/**
 * Reads what our rules log: tcpdump on their nflog group. There is one reader per group and network namespace:
 * the kernel gives the group to the first.
 */
import { once } from 'node:events';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { MAX_LOGGED_BYTES, parseNflog, type LoggedPacket } from './nflog.ts';
import { waitingBytes } from './nflog-queue.ts';
import { PcapReader } from './pcap.ts';
import { isAtWork, startTcpdump, type Tcpdump } from './tcpdump.ts';

/** From its end to the next start. */
const RESTART_MS = 2_000;
const MAX_STDERR_CHARS = 2_000;
/** {@link LogCapture.drain}, at most. */
const DRAIN_MS = 2_000;
const POLL_MS = 10;

/** What is read, and who is told. */
export interface LogCaptureOptions {
  /** nflog group. */
  readonly group: number;
  readonly onPacket: (packet: LoggedPacket) => void;
  /** For what goes wrong. */
  readonly say: (text: string) => void;
}

/** Runs for as long as it is not disposed of, whatever becomes of tcpdump. */
export class LogCapture implements AsyncDisposable {
  readonly #o: LogCaptureOptions;
  #child: Tcpdump | undefined;
  /** So often it has written. */
  #chunks = 0;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #said = '';

  constructor(o: LogCaptureOptions) {
    this.#o = o;
  }

  /** Begins. */
  start(): this {
    const reader = new PcapReader(MAX_LOGGED_BYTES);
    let stderr = '';
    // One that outlived us would keep the group from who comes after us.
    const child = startTcpdump({ device: `nflog:${this.#o.group}` });
    this.#child = child;
    child.stdout.on('data', (chunk: Buffer) => {
      this.#chunks += 1;
      try {
        for (const { data, timeMs } of reader.push(chunk)) {
          const packet = parseNflog(data, timeMs);
          if (packet) this.#o.onPacket(packet);
        }
      } catch (error) {
        stderr += String(error);
        child.kill('SIGKILL');
      }
    });
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', (text: string) => {
      stderr = (stderr + text).slice(-MAX_STDERR_CHARS);
    });
    child.on('error', (error) => {
      stderr += error.message;
    });
    child.on('close', () => this.#ended(stderr));
    return this;
  }

  /** It is told once why it does not run: the tool is missing, or another one reads the group. */
  #ended(why: string): void {
    if (this.#isOver) return;
    const text = `the log of traffic stands still: tcpdump ended: ${why.trim().split('\n').at(-1) ?? ''}`;
    if (text !== this.#said) this.#o.say(text);
    this.#said = text;
    this.#timer = setTimeout(() => this.start(), RESTART_MS);
  }

  /**
   * Resolves when what the kernel has logged so far has been told. At the latest after two seconds: others may log faster than
   * tcpdump reads.
   */
  async drain(): Promise<void> {
    const deadline = performance.now() + DRAIN_MS;
    while (!(await this.#isDrained()) && performance.now() < deadline) await delay(POLL_MS);
  }

  /** In this order: the kernel has handed it all out, tcpdump has written it, and we have read that. */
  async #isDrained(): Promise<boolean> {
    if ((await waitingBytes(this.#o.group)) > 0) return false;
    if (this.#child !== undefined && (await isAtWork(this.#child))) return false;
    const before = this.#chunks;
    for (let turns = 0; turns < 2; turns += 1) await turn(); // between the two it looks whether there is anything to read
    return this.#chunks === before;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'close');
    child.kill('SIGTERM');
    await gone;
  }
}
