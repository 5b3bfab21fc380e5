/** What a caller may ask of a capture of packets, and what it gets. Pure. */
import type { Writable } from 'node:stream';
import { checkOptionShapes, wholeNumber, type OptionShapes } from '../../config/check-options.ts';
import { MAX_TIMEOUT_MS } from '../../config/schema.ts';
import { ConfigError } from '../../errors.ts';
import { MAX_SNAPLEN, PCAP_HEAD_BYTES } from './pcap.ts';

/** Default of {@link CaptureOptions.maxBytes}. */
export const DEFAULT_MAX_CAPTURE_BYTES = 100 * 2 ** 20;
/** An Ethernet head: with less of a packet nobody could say what it was. */
const MIN_SNAPLEN = 14;

/** What is captured, and where to. One of `file` and `stream` is needed. */
export interface CaptureOptions {
  /** Path of a file that is not there yet; it is made, for its owner alone (0600). */
  readonly file?: string | undefined;
  /** Anything else that takes bytes; it is not ended with the capture. */
  readonly stream?: Writable | undefined;
  /** The capture ends before it has more than these bytes, at least 24. Default 100 MiB. */
  readonly maxBytes?: number | undefined;
  /** Bytes that are kept of a packet, 14–262 144. Default 262 144: all of it. */
  readonly snaplen?: number | undefined;
  /** ms after which it ends. Default: none. */
  readonly durationMs?: number | undefined;
  /**
   * Whether it goes on, into the same file or stream, when the VM is started or resumed again, until the VM is removed.
   * Default: it ends with the VM's tap.
   */
  readonly follow?: boolean | undefined;
}

/** What there is of a capture. */
export interface CaptureStats {
  /** Packets that were written. */
  readonly packets: number;
  /** Bytes that were written. */
  readonly bytes: number;
}

/**
 * Why a capture ended.
 * - `closed`: by who began it: disposed of, or its signal aborted
 * - `duration`, `max-bytes`: as it was told
 * - `vm-ended`: the VM's interface is gone: it was stopped, suspended, killed or removed, or its guest went down. Of one that
 *   follows: the VM is gone
 * - `failed`: see `error`
 */
export type CaptureEnd = 'closed' | 'duration' | 'max-bytes' | 'vm-ended' | 'failed';

/** A capture that is over. */
export interface CaptureResult extends CaptureStats {
  readonly reason: CaptureEnd;
  /** Packets that the kernel had no room for, as we were too slow. Undefined: tcpdump could not say any more. */
  readonly dropped: number | undefined;
  /** HostError ERR_HOST_DISK_FULL; NetworkSetupError tcpdump ended; what the stream or the file failed with. */
  readonly error?: Error | undefined;
}

/** Packets of a VM on their way to a file or stream. Ends by itself, see {@link CaptureEnd}, or by being disposed of. */
export interface NetworkCapture extends AsyncDisposable {
  /** So far. */
  readonly stats: CaptureStats;
  /** Resolves when it is over and all of it has been written; never rejects. */
  readonly ended: Promise<CaptureResult>;
}

/** Checked, defaults filled in. */
export interface CaptureConfig {
  readonly target: string | Writable;
  readonly maxBytes: number;
  readonly snaplen: number;
  readonly durationMs: number | undefined;
  readonly follow: boolean;
}

const OPTIONS: OptionShapes<CaptureOptions> = {
  file: 'text',
  stream: 'object',
  maxBytes: 'number',
  snaplen: 'number',
  durationMs: 'number',
  follow: 'flag',
};

/**
 * Checks what is asked for. Pure.
 * @param section how errors call it, as `capture` or `vm.pcap`
 * @throws ConfigError
 */
export function checkCapture(o: CaptureOptions, section: string): CaptureConfig {
  checkOptionShapes(o, OPTIONS, { section, noun: 'option' });
  const { file, stream } = o;
  const isPath = typeof file === 'string' && file !== '' && !file.includes('\0');
  if ((file === undefined) === (stream === undefined) || (file !== undefined && !isPath)) {
    throw new ConfigError('where the captured packets go is not clear', {
      field: `${section}.file`,
      value: file,
      hint: 'Give either the path of a file or a stream.',
    });
  }
  const whole = (name: keyof CaptureOptions, value: number, min: number, max: number) =>
    wholeNumber(`${section}.${name}`, value, min, max);
  return {
    target: file ?? stream!,
    maxBytes: whole(
      'maxBytes',
      o.maxBytes ?? DEFAULT_MAX_CAPTURE_BYTES,
      PCAP_HEAD_BYTES,
      Number.MAX_SAFE_INTEGER,
    ),
    snaplen: whole('snaplen', o.snaplen ?? MAX_SNAPLEN, MIN_SNAPLEN, MAX_SNAPLEN),
    durationMs:
      o.durationMs === undefined ? undefined : whole('durationMs', o.durationMs, 1, MAX_TIMEOUT_MS),
    follow: o.follow ?? false,
  };
}
