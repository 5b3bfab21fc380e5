/** What arrives upstream, each frame with the kernel's time: tcpdump on the internet's side of the cable. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { PcapReader } from '../../../src/network/traffic/pcap.ts';

/** A frame, and when it came by the clock of this machine. */
export interface Arrival {
  readonly data: Buffer;
  readonly timeMs: number;
}

/** Captures until it is disposed of. */
export class Capture implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly arrivals: Arrival[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    const reader = new PcapReader();
    child.stdout!.on('data', (chunk: Buffer) => {
      // The reader's buffers are views of what it was given.
      const copies = reader.push(chunk).map((one) => ({ ...one, data: Buffer.from(one.data) }));
      this.arrivals.push(...copies);
    });
  }

  /** @param commandOf how a command is run on the internet's side */
  static async start(
    commandOf: (argv: readonly string[]) => [file: string, args: string[]],
  ): Promise<Capture> {
    const tcpdump = ['tcpdump', '-i', 'eth0', '-Q', 'in', '-Z', 'root', '-U', '--immediate-mode'];
    const [file, args] = commandOf([...tcpdump, '-w', '-']);
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const capture = new Capture(child);
    await new Promise<void>((resolve, reject) => {
      let said = ''; // it comes in pieces on a loaded machine
      child.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        if (said.includes('listening')) resolve();
      });
      child.once('close', () => reject(new Error(`tcpdump ended: ${said}`)));
      child.once('error', reject);
    });
    return capture;
  }

  /** Those that hold a text, as they came. */
  holding(text: string): Arrival[] {
    return this.arrivals.filter(({ data }) => data.includes(text));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#child, 'exit');
    if (this.#child.kill('SIGTERM')) await gone;
  }
}
