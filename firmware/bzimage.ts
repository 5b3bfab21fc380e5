/**
 * Takes the kernel out of a bzImage. QEMU starts the ELF file inside by PVH (a `XEN_ELFNOTE_PHYS32_ENTRY`
 * note in it, CONFIG_PVH), which leaves out the decompressor: under emulation that saves 1.5 s of a
 * boot of 5 s, see docs/images.md.
 *
 * Layout: Documentation/arch/x86/boot.rst of the kernel, "The Real-Mode Kernel Header".
 */

/** How the kernel inside a bzImage is compressed. */
export type KernelCompression = 'gzip' | 'xz' | 'zstd';

/** The compressed kernel inside a bzImage. */
export interface KernelPayload {
  readonly compression: KernelCompression;
  /** Compressed bytes without the size that the build appends. */
  readonly data: Buffer;
  /** Size of the ELF file in it, bytes. */
  readonly uncompressedBytes: number;
}

const SECTOR = 512;
const SETUP_SECTS = 0x1f1;
const HEADER_MAGIC = 0x202;
const PROTOCOL_VERSION = 0x206;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
/** Boot protocol in which payload_offset and payload_length came. */
const PAYLOAD_SINCE = 0x0208;

const MAGICS: readonly (readonly [KernelCompression, Buffer])[] = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
];

/** The payload of a bzImage; undefined where it is none or of a compression that we do not know. */
export function kernelPayload(image: Buffer): KernelPayload | undefined {
  if (image.length < PAYLOAD_LENGTH + 4) return undefined;
  if (image.toString('latin1', HEADER_MAGIC, HEADER_MAGIC + 4) !== 'HdrS') return undefined;
  if (image.readUInt16LE(PROTOCOL_VERSION) < PAYLOAD_SINCE) return undefined;
  const setupSectors = image[SETUP_SECTS] ?? 0; // 0 means 4, for very old loaders
  const start =
    ((setupSectors === 0 ? 4 : setupSectors) + 1) * SECTOR + image.readUInt32LE(PAYLOAD_OFFSET);
  const length = image.readUInt32LE(PAYLOAD_LENGTH);
  if (length < 8 || start + length > image.length) return undefined;
  const payload = image.subarray(start, start + length);
  const compression = MAGICS.find(([, magic]) => payload.subarray(0, magic.length).equals(magic));
  if (compression === undefined) return undefined;
  // scripts/Makefile.lib appends the uncompressed size, little endian; gzip has it as its own trailer.
  const trailer = compression[0] === 'gzip' ? 0 : 4;
  return {
    compression: compression[0],
    data: payload.subarray(0, payload.length - trailer),
    uncompressedBytes: payload.readUInt32LE(payload.length - 4),
  };
}

const PT_NOTE = 4;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

/** Whether an x86-64 ELF kernel says how to be entered by PVH, which QEMU needs to start it. */
export function hasPvhEntry(elf: Buffer): boolean {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false;
  const tableOffset = Number(elf.readBigUInt64LE(32));
  const entryBytes = elf.readUInt16LE(54);
  const count = elf.readUInt16LE(56);
  for (let index = 0; index < count; index++) {
    const at = tableOffset + index * entryBytes;
    if (at + 56 > elf.length) return false;
    if (elf.readUInt32LE(at) !== PT_NOTE) continue;
    const offset = Number(elf.readBigUInt64LE(at + 8));
    const size = Number(elf.readBigUInt64LE(at + 32));
    if (notesHoldEntry(elf.subarray(offset, offset + size))) return true;
  }
  return false;
}

function notesHoldEntry(notes: Buffer): boolean {
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameBytes = notes.readUInt32LE(at);
    const descBytes = notes.readUInt32LE(at + 4);
    const type = notes.readUInt32LE(at + 8);
    const name = notes.toString('latin1', at + 12, at + 12 + nameBytes);
    if (type === XEN_ELFNOTE_PHYS32_ENTRY && name === 'Xen\0') return true;
    at += 12 + align4(nameBytes) + align4(descBytes);
  }
  return false;
}

function align4(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
