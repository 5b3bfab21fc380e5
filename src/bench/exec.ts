import { once } from 'node:events';
import { Vm, type CommandHandle } from '../vm/index.ts';
import { interleave } from './interleave.ts';
import type { BenchReport } from './report.ts';
import { beginRun, makeReport, subjectOf, type BenchOptions } from './subject.ts';
import { openEcho, streamThrough, streamThroughCat, STREAM_BYTES } from './throughput.ts';

/**
 * What a plain Node program in the guest pays for the same work: for each byte on stdin it spawns
 * `true` with pipes, waits for its end, and prints how many ms that took by the guest's own clock.
 */
const SPAWN_TRUE = `
const { spawn } = require('node:child_process');
process.stdin.on('data', () => {
  const begun = process.hrtime.bigint();
  spawn('true').on('close', () => {
    console.log(Number(process.hrtime.bigint() - begun) / 1e6);
  });
});
console.log('ready');
`;

/** A Node program in the guest that takes one {@link SPAWN_TRUE} sample at a time. */
class FloorProgram implements AsyncDisposable {
  readonly #handle: CommandHandle;
  readonly #lines: AsyncIterator<number>;

  private constructor(handle: CommandHandle, lines: AsyncIterator<number>) {
    this.#handle = handle;
    this.#lines = lines;
  }

  static async start(vm: Vm, signal: AbortSignal): Promise<FloorProgram> {
    const lines = new EventTarget();
    let text = '';
    const queue: number[] = [];
    const handle = await vm.commands.run(['node', '-e', SPAWN_TRUE], {
      background: true,
      stdin: true,
      timeoutMs: 0,
      signal,
      onStdout: (data: string) => {
        const parts = (text + data).split('\n');
        text = parts.pop() ?? '';
        queue.push(...parts.map(Number));
        lines.dispatchEvent(new Event('line'));
      },
    });
    async function* numbers(): AsyncGenerator<number, never> {
      for (;;) {
        const next = queue.shift();
        if (next !== undefined) yield next;
        else await once(lines, 'line', { signal });
      }
    }
    const program = new FloorProgram(handle, numbers());
    await program.#lines.next(); // `ready`
    return program;
  }

  async sample(): Promise<number> {
    await this.#handle.sendStdin('.');
    const { value } = (await this.#lines.next()) as { value: number };
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.kill();
    await this.#handle.wait().catch(() => undefined); // ends by SIGKILL: that is what was asked for
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

const mibPerSecond = (ms: number): number => STREAM_BYTES / 1024 / 1024 / (ms / 1000);

/** The agent tidies up after an exec within this time. */
const SETTLE_MS = 150;

/** Samples of the streams are seconds each, so there are fewer of them. */
const STREAM_RUNS_MAX = 5;

/**
 * `exec.ping`, `exec.true` and its floor (a plain Node program in the guest that spawns `true` and
 * waits); `exec.throughput` (64 MiB through stdin → `cat` → stdout) and its floor (the same bytes
 * echoed raw over the same kind of channel, in a second VM).
 *
 * @throws whatever `Vm.create` and `vm.commands.run` throw
 */
export async function benchExec(options: BenchOptions): Promise<BenchReport> {
  const { signal, runs } = options;
  const begun = beginRun();
  await using vm = await Vm.create({ ...options.vm, signal });
  const subject = await subjectOf(await vm.info(), options);
  const calls = await (async () => {
    await using floor = await FloorProgram.start(vm, signal);
    return await interleave(
      [
        { name: 'exec.ping', unit: 'ms', sample: async () => (await vm.guest()).ping({ signal }) },
        {
          name: 'exec.true',
          unit: 'ms',
          sample: () => timed(() => vm.commands.run(['true'], { signal })),
        },
        { name: 'exec.floor', unit: 'ms', sample: () => floor.sample() },
      ],
      { ...options, warmup: 5, settleMs: SETTLE_MS },
    );
  })();
  await using echo = await openEcho(options, subject);
  const streams = await interleave(
    [
      {
        name: 'exec.throughput',
        unit: 'MiB/s',
        sample: async () => mibPerSecond(await timed(() => streamThroughCat(vm, signal))),
      },
      {
        name: 'exec.throughput-floor',
        unit: 'MiB/s',
        sample: async () => mibPerSecond(await timed(() => streamThrough(echo.stream, signal))),
      },
    ],
    { ...options, runs: Math.min(runs, STREAM_RUNS_MAX) },
  );
  return makeReport(
    begun,
    subject,
    [...calls, ...streams],
    [
      ['exec.true-to-floor', 'exec.true', 'exec.floor'],
      ['exec.throughput-to-floor', 'exec.throughput', 'exec.throughput-floor'],
    ],
  );
}
