/**
 * Headers of tar archives: POSIX ustar and pax, GNU and v7 (tar(5) of FreeBSD has them all).
 *
 * Our own, because names and extended attributes must come through byte by byte: file capabilities
 * are binary, and libraries decode pax records as UTF-8. So every string here holds one byte a
 * character (latin1), and every length is bounded.
 */

/** Bytes of a header, and the unit of data. */
export const BLOCK_BYTES = 512;

/** What an entry is. `other` carries a type that we do not unpack. */
export type TarKind =
  'file' | 'link' | 'symlink' | 'character-device' | 'block-device' | 'directory' | 'fifo';

/** One entry, with long names and pax records applied. */
export interface TarHeader {
  /** Bytes as latin1, as the archive has it. */
  readonly name: string;
  readonly kind: TarKind;
  /** Permission bits, 0o7777 at most. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the data that follows. 0 for all but files. */
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly mtimeS: number;
  /** Target of links. Bytes as latin1. */
  readonly linkName: string;
  /** Major and minor number. */
  readonly device: readonly [number, number];
  /** Extended attributes that images keep. Bytes as latin1. */
  readonly xattrs: ReadonlyMap<string, string>;
}

/** A header block as it stands, before what came in front of it is applied. */
export interface RawHeader {
  name: string;
  mode: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  mtimeS: number;
  /** The type's character; `0` for NUL. */
  type: string;
  linkName: string;
  device: readonly [number, number];
}

const KINDS: Readonly<Record<string, TarKind>> = {
  '0': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file', // contiguous
};
const TYPES: Readonly<Record<TarKind, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  'character-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
};

/** The kind of a type that we unpack; undefined for any other. */
export function kindOf(type: string): TarKind | undefined {
  return KINDS[type];
}

/**
 * Decodes a block. Undefined for one of zeros, which ends an archive.
 * @throws RangeError the checksum is wrong, or a number is none
 */
export function decodeHeader(block: Buffer): RawHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  checkSum(block);
  const text = (from: number, length: number): string => {
    const end = block.indexOf(0, from);
    return block.toString('latin1', from, end < 0 || end > from + length ? from + length : end);
  };
  const posix = block.toString('latin1', 257, 263) === 'ustar\0'; // GNU has other things in `prefix`
  const prefix = posix ? text(345, 155) : '';
  const name = text(0, 100);
  const type = block[156] === 0 ? '0' : String.fromCharCode(block[156] ?? 0);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8) & 0o7777,
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    sizeBytes: number(block, 124, 12),
    mtimeS: number(block, 136, 12),
    type: type === '0' && name.endsWith('/') ? '5' : type, // v7 knew no directories
    linkName: text(157, 100),
    device: type === '3' || type === '4' ? [number(block, 329, 8), number(block, 337, 8)] : [0, 0],
  };
}

function checkSum(block: Buffer): void {
  let unsigned = 8 * 0x20; // the sum's own field counts as blanks
  let signed = unsigned; // as some old programs reckoned
  for (let at = 0; at < BLOCK_BYTES; at++) {
    if (at >= 148 && at < 156) continue;
    const byte = block[at] ?? 0;
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const expected = number(block, 148, 8);
  if (expected !== unsigned && expected !== signed) throw new RangeError('its checksum is wrong');
}

/** Octal digits, or base 256 where the first bit is set (GNU; POSIX leaves it open). */
function number(block: Buffer, from: number, length: number): number {
  const first = block[from] ?? 0;
  if ((first & 0x80) !== 0) {
    let value = first === 0xff ? -1n : BigInt(first & 0x7f);
    for (let at = from + 1; at < from + length; at++) value = value * 256n + BigInt(block[at] ?? 0);
    return Number(value);
  }
  const digits = block
    .toString('latin1', from, from + length)
    .replace(/^[ \0]+/, '')
    .replace(/[ \0][^]*$/, '');
  if (digits === '') return 0;
  if (!/^[0-7]+$/.test(digits)) throw new RangeError('a number in it is none');
  return Number.parseInt(digits, 8);
}

/**
 * Pax records: `LENGTH KEY=VALUE\n`, one after the other. Values are bytes as latin1.
 * @throws RangeError it is none
 */
export function decodePax(data: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  let at = 0;
  while (at < data.length) {
    const blank = data.indexOf(0x20, at);
    const digits = blank < 0 ? '' : data.toString('latin1', at, blank);
    const end = at + Number(digits);
    const equals = data.indexOf(0x3d, blank + 1);
    const sound =
      /^[1-9][0-9]{0,8}$/.test(digits) &&
      end <= data.length &&
      equals > blank &&
      equals < end &&
      data[end - 1] === 0x0a;
    if (!sound) throw new RangeError('an extended header is broken');
    records.set(
      data.toString('latin1', blank + 1, equals),
      data.toString('latin1', equals + 1, end - 1),
    );
    at = end;
  }
  return records;
}

/** Encodes an entry, with GNU's long names and numbers and a pax header for attributes. */
export function encodeHeader(header: TarHeader): Buffer {
  const parts: Buffer[] = [];
  if (header.xattrs.size > 0) {
    const records = [...header.xattrs].map(([name, value]) =>
      paxRecord(`SCHILY.xattr.${name}`, value),
    );
    parts.push(extension('x', records.join('')));
  }
  if (header.linkName.length > 100) parts.push(extension('K', `${header.linkName}\0`));
  if (header.name.length > 100) parts.push(extension('L', `${header.name}\0`));
  parts.push(encodeBlock({ ...header, type: TYPES[header.kind] }));
  return Buffer.concat(parts);
}

/** The length counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length;
  return `${length}${rest}`;
}

function extension(type: string, bytes: string): Buffer {
  const data = Buffer.from(bytes, 'latin1');
  const block = encodeBlock({
    name: '././@LongLink',
    mode: 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: data.length,
    mtimeS: 0,
    type,
    linkName: '',
    device: [0, 0],
  });
  return Buffer.concat([block, data, padding(data.length)]);
}

function encodeBlock(header: RawHeader): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const put = (value: number, from: number, length: number): void => {
    const digits = value.toString(8).padStart(length - 1, '0');
    if (digits.length < length) block.write(digits, from, 'latin1');
    else {
      block.writeUIntBE(value, from + length - 6, 6);
      block[from] = 0x80;
    }
  };
  block.write(header.name.slice(0, 100), 0, 'latin1');
  put(header.mode, 100, 8);
  put(header.uid, 108, 8);
  put(header.gid, 116, 8);
  put(header.sizeBytes, 124, 12);
  put(header.mtimeS, 136, 12);
  block.write(header.type, 156, 'latin1');
  block.write(header.linkName.slice(0, 100), 157, 'latin1');
  block.write('ustar  \0', 257, 'latin1'); // GNU's
  put(header.device[0], 329, 8);
  put(header.device[1], 337, 8);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Zeros after data of this length, up to the next block. */
export function padding(length: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (length % BLOCK_BYTES)) % BLOCK_BYTES);
}

/** Ends an archive. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK_BYTES);
