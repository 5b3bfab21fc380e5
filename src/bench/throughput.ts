import { createHash, randomBytes } from 'node:crypto';
import { Readable, type Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { echoFiles } from '../../guest-agent/bundle.ts';
import { GuestProtocolError } from '../errors.ts';
import type { Vm } from '../vm/index.ts';
import { BareVm } from './bare-vm.ts';
import type { BenchOptions, BenchSubject } from './subject.ts';

/** Bytes of one stream sample. */
export const STREAM_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** Random, so that nothing on the way can be clever about it. */
const chunk = randomBytes(CHUNK_BYTES);
const chunks = STREAM_BYTES / CHUNK_BYTES;
const expected = (() => {
  const hash = createHash('sha256');
  for (let i = 0; i < chunks; i += 1) hash.update(chunk);
  return hash.digest('hex');
})();

function source(): Readable {
  return Readable.from(
    (function* () {
      for (let i = 0; i < chunks; i += 1) yield chunk;
    })(),
    { objectMode: false, highWaterMark: CHUNK_BYTES },
  );
}

/** {@link STREAM_BYTES} through stdin → `cat` → stdout. @throws GuestProtocolError where a byte differs */
export async function streamThroughCat(vm: Vm, signal: AbortSignal): Promise<void> {
  const hash = createHash('sha256');
  await vm.commands.run(['cat'], {
    stdin: source(),
    encoding: 'buffer',
    maxOutputBytes: 0,
    timeoutMs: 0,
    signal,
    onStdout: (data: Buffer) => void hash.update(data),
  });
  check(hash.digest('hex'));
}

/** {@link STREAM_BYTES} into a raw echo and back. @throws GuestProtocolError where a byte differs */
export async function streamThrough(stream: Duplex, signal: AbortSignal): Promise<void> {
  const hash = createHash('sha256');
  let left = STREAM_BYTES;
  const received = new Promise<void>((resolve, reject) => {
    const settle = (act: () => void) => {
      stream.off('data', onData);
      stream.off('close', onClose);
      act();
    };
    const onClose = () => {
      settle(() => {
        reject(new GuestProtocolError('the echo ended before all bytes were back'));
      });
    };
    const onData = (data: Buffer) => {
      hash.update(data);
      left -= data.length;
      if (left <= 0) settle(resolve);
    };
    stream.on('data', onData);
    stream.on('close', onClose);
  });
  await Promise.all([pipeline(source(), stream, { end: false, signal }), received]);
  check(hash.digest('hex'));
}

function check(digest: string): void {
  if (digest !== expected) {
    throw new GuestProtocolError('the bytes that came back are not those that were sent');
  }
}

/** A second VM of the same kind with the echo in the agent's place, over the same channel. */
export async function openEcho(
  options: BenchOptions,
  subject: BenchSubject,
): Promise<AsyncDisposable & { stream: Duplex }> {
  const { store, qemuPath, signal } = options;
  const program = await echoFiles();
  const bare = await BareVm.start({ ...subject, store, qemuPath, signal, program });
  try {
    return {
      stream: await bare.connect(),
      [Symbol.asyncDispose]: () => bare[Symbol.asyncDispose](),
    };
  } catch (error) {
    await bare[Symbol.asyncDispose]();
    throw error;
  }
}
