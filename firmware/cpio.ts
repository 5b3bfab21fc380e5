/**
 * Writes cpio archives in the `newc` format, which the kernel unpacks as initramfs
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Archives can be concatenated: the
 * kernel goes on after each trailer, so a fixed part is written once and a varying part appended.
 */

/** One entry of an archive. Parents must come before what is in them. */
export interface CpioEntry {
  /** Relative path without a leading slash. */
  readonly name: string;
  /** Type and permission bits, e.g. `0o100755`; see {@link directory}, {@link file}. */
  readonly mode: number;
  /** Contents of a file, target of a symbolic link. Default empty. */
  readonly data?: Buffer | undefined;
  /** Major and minor of a device node. Default 0:0. */
  readonly device?: readonly [major: number, minor: number] | undefined;
}

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;
/** The format's size fields have 32 bits. */
const MAX_FILE_BYTES = 0xffff_ffff;
const HEADER_BYTES = 110;

/** A directory's entry. */
export function directory(name: string, permissions = 0o755): CpioEntry {
  return { name, mode: S_IFDIR | permissions };
}

/** A regular file's entry. */
export function file(name: string, data: Buffer, permissions = 0o644): CpioEntry {
  return { name, mode: S_IFREG | permissions, data };
}

/** A symbolic link's entry. */
export function symlink(name: string, target: string): CpioEntry {
  return { name, mode: S_IFLNK | 0o777, data: Buffer.from(target) };
}

/** A character device's entry. */
export function charDevice(
  name: string,
  major: number,
  minor: number,
  permissions = 0o600,
): CpioEntry {
  return { name, mode: S_IFCHR | permissions, device: [major, minor] };
}

/**
 * The archive. Owner is root and every time stamp 0, so equal entries give equal bytes.
 * @throws {RangeError} for a file of 4 GiB or more, a name with a leading slash, or the trailer's name
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const chunks: Buffer[] = [];
  entries.forEach((entry, index) => chunks.push(...encode(entry, index + 1)));
  chunks.push(...encode({ name: TRAILER, mode: 0 }, 0, true));
  return Buffer.concat(chunks);
}

const TRAILER = 'TRAILER!!!';

function encode(entry: CpioEntry, inode: number, trailer = false): Buffer[] {
  const { name, mode, data = Buffer.alloc(0), device = [0, 0] } = entry;
  if (
    name === '' ||
    name.startsWith('/') ||
    name.includes('\0') ||
    (name === TRAILER && !trailer)
  ) {
    throw new RangeError(`not a name for a cpio entry: ${JSON.stringify(name)}`);
  }
  if (data.length > MAX_FILE_BYTES) throw new RangeError(`${name}: too large for cpio`);
  const nameBytes = Buffer.from(`${name}\0`);
  const fields = [
    inode,
    mode,
    0, // uid
    0, // gid
    1, // links
    0, // mtime
    data.length,
    0, // device of the archive's file system
    0,
    device[0],
    device[1],
    nameBytes.length,
    0, // checksum, only used by the `crc` variant
  ];
  const header = Buffer.from(
    '070701' + fields.map((value) => value.toString(16).toUpperCase().padStart(8, '0')).join(''),
    'latin1',
  );
  return [header, nameBytes, pad(HEADER_BYTES + nameBytes.length), data, pad(data.length)];
}

/** Header with name, and data, are each padded to a multiple of four. */
function pad(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
