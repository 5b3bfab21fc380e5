/** Reads a tar archive from a stream, entry by entry, in bounded memory. */
import { importError, MAKE_ANEW, DO_NOT_TRUST, showName } from './import-error.ts';
import {
  BLOCK_BYTES,
  decodeHeader,
  decodePax,
  kindOf,
  type RawHeader,
  type TarHeader,
} from './tar-header.ts';

/** One entry as it comes by. */
export interface TarEntry {
  readonly header: TarHeader;
  /** Count of entries before it. */
  readonly ordinal: number;
  /** Where its data begins in the archive. */
  readonly offset: number;
  /** Its data, to be read before the next entry is asked for; what is left unread is skipped. */
  readonly data: AsyncIterable<Buffer>;
}

/** Long names and pax records together; real ones have some hundred bytes. */
const MAX_EXTENSION_BYTES = 1024 * 1024;
/** tar fills up its last record with zeros, of 10 KiB as a rule. */
const MAX_TRAILING_BYTES = 64 * 1024 * 1024;
/** Extended attributes that mean something inside a VM of ours. Overlay's and SELinux's do not. */
const KEPT_XATTRS = /^(security\.capability|user\..+)$/;
const XATTR = 'SCHILY.xattr.';
/** Largest id: (uid_t) -1 means "no change". */
const MAX_ID = 0xffff_fffe;
/** ext4 with 256-byte inodes keeps times up to 2446. */
const MAX_MTIME_S = 15_032_385_535;

/**
 * Entries of an archive. The stream is read to its end, also past the archive's.
 * @param label names the archive in errors
 * @throws ImageError it is broken, cut short, or has entries that cannot be unpacked
 */
export async function* readTar(
  source: AsyncIterable<Buffer>,
  label: string,
): AsyncGenerator<TarEntry> {
  const bytes = new ByteSource(source, label);
  try {
    for (let ordinal = 0; ; ordinal++) {
      const header = await nextHeader(bytes, label);
      if (header === undefined) break;
      const offset = bytes.position;
      const end = offset + header.sizeBytes;
      yield { header, ordinal, offset, data: bytes.until(end) };
      await bytes.skip(end + ((BLOCK_BYTES - (header.sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES));
    }
    await bytes.drain();
  } finally {
    await bytes.close();
  }
}

async function nextHeader(bytes: ByteSource, label: string): Promise<TarHeader | undefined> {
  const extensions = new Map<string, string>();
  let budget = MAX_EXTENSION_BYTES;
  for (;;) {
    const block = await bytes.take(BLOCK_BYTES);
    if (block === undefined) {
      if (extensions.size > 0) throw bytes.cutShort();
      return undefined; // no end mark: some writers leave it out
    }
    const raw = decoded(() => decodeHeader(block), bytes, label);
    if (raw === undefined) return undefined;
    if (!'xgLK'.includes(raw.type)) return finish(raw, extensions, label);
    budget -= raw.sizeBytes;
    if (!(raw.sizeBytes >= 0 && budget >= 0)) {
      throw importError(
        `${label}: an entry's extended header has ${raw.sizeBytes} bytes`,
        DO_NOT_TRUST,
      );
    }
    const data = await bytes.take(raw.sizeBytes);
    if (data === undefined) throw bytes.cutShort();
    await bytes.skip(
      bytes.position + ((BLOCK_BYTES - (raw.sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES),
    );
    if (raw.type === 'x') {
      for (const [key, value] of decoded(() => decodePax(data), bytes, label)) {
        extensions.set(key, value);
      }
    } else if (raw.type !== 'g') {
      const text = data.toString('latin1').replace(/\0[^]*$/, '');
      extensions.set(raw.type === 'L' ? 'path' : 'linkpath', text);
    }
  }
}

function decoded<T>(decode: () => T, bytes: ByteSource, label: string): T {
  try {
    return decode();
  } catch (error) {
    const why = (error as RangeError).message;
    const at =
      bytes.position === BLOCK_BYTES
        ? 'is not a tar archive'
        : `is broken at byte ${bytes.position}`;
    throw importError(`${label} ${at}: ${why}`, MAKE_ANEW);
  }
}

function finish(raw: RawHeader, extensions: ReadonlyMap<string, string>, label: string): TarHeader {
  const name = extensions.get('path') ?? raw.name;
  const refuse = (why: string, hint: string): never => {
    throw importError(`${label}: ${showName(name)} ${why}`, hint);
  };
  const kind = kindOf(raw.type);
  if (raw.type === 'S' || [...extensions.keys()].some((key) => key.startsWith('GNU.sparse.'))) {
    return refuse('is stored as a sparse file', 'Make the archive without tar --sparse.');
  }
  if (kind === undefined) {
    return refuse(
      `is of type ${JSON.stringify(raw.type)}, which no root filesystem holds`,
      'Make the archive of a whole directory with tar --create.',
    );
  }
  const numeric = (key: string, value: number, max: number): number => {
    const given = extensions.get(key);
    const result = given === undefined ? value : Number(given);
    if (Number.isFinite(result) && result >= 0 && result <= max) return result;
    return refuse(`has ${given ?? value} for its ${key}`, DO_NOT_TRUST);
  };
  const sizeBytes = numeric('size', raw.sizeBytes, Number.MAX_SAFE_INTEGER);
  const mtimeS = Math.floor(Number(extensions.get('mtime') ?? raw.mtimeS));
  return {
    name,
    kind,
    mode: raw.mode,
    uid: numeric('uid', raw.uid, MAX_ID),
    gid: numeric('gid', raw.gid, MAX_ID),
    sizeBytes: kind === 'file' ? sizeBytes : 0,
    mtimeS: Number.isFinite(mtimeS) ? Math.min(Math.max(mtimeS, 0), MAX_MTIME_S) : 0,
    linkName: extensions.get('linkpath') ?? raw.linkName,
    device: raw.device,
    xattrs: new Map(
      [...extensions]
        .filter(([key]) => key.startsWith(XATTR) && KEPT_XATTRS.test(key.slice(XATTR.length)))
        .map(([key, value]) => [key.slice(XATTR.length), value]),
    ),
  };
}

/** A stream read by counts of bytes. */
class ByteSource {
  readonly #iterator: AsyncIterator<Buffer>;
  readonly #label: string;
  #chunk: Buffer = Buffer.alloc(0);
  #ended = false;
  /** Bytes read so far. */
  position = 0;

  constructor(source: AsyncIterable<Buffer>, label: string) {
    this.#iterator = source[Symbol.asyncIterator]();
    this.#label = label;
  }

  /** `count` bytes; undefined where the stream has ended before the first. */
  async take(count: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      const part = await this.#next(missing);
      if (part === undefined) {
        if (missing === count) return undefined;
        throw this.cutShort();
      }
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }

  /** What comes until the position `end`. */
  async *until(end: number): AsyncGenerator<Buffer> {
    while (this.position < end) {
      const part = await this.#next(end - this.position);
      if (part === undefined) throw this.cutShort();
      yield part;
    }
  }

  async skip(end: number): Promise<void> {
    while (this.position < end) {
      if ((await this.#next(end - this.position)) === undefined) throw this.cutShort();
    }
  }

  /** Reads on to the end, for the sake of whoever computes a digest of the stream. */
  async drain(): Promise<void> {
    const end = this.position + MAX_TRAILING_BYTES;
    while ((await this.#next(Number.MAX_SAFE_INTEGER)) !== undefined) {
      if (this.position < end) continue;
      throw importError(`${this.#label} goes on for long after its end mark`, DO_NOT_TRUST);
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #next(most: number): Promise<Buffer | undefined> {
    while (this.#chunk.length === 0) {
      if (this.#ended) return undefined;
      const next = await this.#iterator.next();
      if (next.done === true) this.#ended = true;
      else this.#chunk = next.value;
    }
    const part = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(part.length);
    this.position += part.length;
    return part;
  }

  cutShort(): Error {
    const fault =
      this.position < BLOCK_BYTES ? 'is not a tar archive: it has' : 'is cut short: it ends after';
    return importError(`${this.#label} ${fault} ${this.position} bytes`, MAKE_ANEW);
  }
}
