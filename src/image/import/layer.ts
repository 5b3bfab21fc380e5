/** Layers: where the files of an import come from, in the order they are applied. */
import { execa } from 'execa';
import { BUILD_PATH } from '../../../firmware/build-process.ts';
import { decompressed } from './decompress.ts';
import { readRange, type FileRange } from './file-range.ts';
import { importError } from './import-error.ts';

/** A tar archive, to be read twice: for its headers, then for its contents. */
export interface Layer {
  /** Names it in errors. */
  readonly label: string;
  /** Whether names that begin with `.wh.` delete what earlier layers have. */
  readonly whiteouts: boolean;
  /** What its uncompressed bytes must hash to; hex. */
  readonly sha256?: string | undefined;
  /** Bytes that a reading passes to `onRead`, where that is known. */
  readonly sizeBytes?: number | undefined;
  /** The uncompressed archive. */
  readonly open: (o: LayerReading) => AsyncIterable<Buffer>;
}

/** One reading of a layer. */
export interface LayerReading {
  readonly signal?: AbortSignal | undefined;
  /** Hears of every chunk that is read from the source. */
  readonly onRead?: ((bytes: number) => void) | undefined;
}

/** A layer in a file, compressed or not. */
export function fileLayer(
  range: FileRange,
  o: { label: string; whiteouts: boolean; sha256?: string | undefined },
): Layer {
  return {
    ...o,
    sizeBytes: range.sizeBytes,
    open: ({ signal, onRead }) => decompressed(counted(readRange(range, signal), onRead), o.label),
  };
}

async function* counted(
  source: AsyncIterable<Buffer>,
  onRead: ((bytes: number) => void) | undefined,
): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    onRead?.(chunk.length);
    yield chunk;
  }
}

/**
 * What makes two readings of a directory equal: order, and no times of access or process ids in the
 * extended headers. Other file systems mounted below (/proc of a live system) are left out.
 */
const TAR_OPTIONS: readonly string[] = [
  ...['--create', '--file=-', '--format=posix', '--numeric-owner', '--one-file-system'],
  ...['--sort=name', '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'],
  ...['--xattrs', '--xattrs-include=security.capability', '--xattrs-include=user.*'],
  '--warning=no-file-ignored', // sockets
];
const MAX_STDERR_BYTES = 4096;

/** A directory on the host, by GNU tar. */
export function directoryLayer(path: string): Layer {
  const label = `directory ${path}`;
  return { label, whiteouts: false, open: ({ signal }) => archived(path, label, signal) };
}

async function* archived(
  path: string,
  label: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const child = execa('tar', [...TAR_OPTIONS, '-C', path, '.'], {
    env: { PATH: BUILD_PATH, LC_ALL: 'C.UTF-8' },
    extendEnv: false,
    stdin: 'ignore',
    buffer: { stdout: false, stderr: true },
    maxBuffer: { stderr: MAX_STDERR_BYTES },
    reject: false,
  });
  try {
    for await (const chunk of child.stdout) {
      signal?.throwIfAborted();
      yield chunk as Buffer;
    }
    const { exitCode, stderr } = await child;
    if (exitCode !== 0) {
      throw importError(
        `${label} cannot be read: ${String(stderr).trim().slice(0, MAX_STDERR_BYTES)}`,
        'See that nothing writes to it meanwhile, and that you may read all of it (root may).',
      );
    }
  } finally {
    child.kill('SIGKILL');
    await child;
  }
}
