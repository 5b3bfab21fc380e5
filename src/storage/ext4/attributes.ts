/** Extended attributes of ext4, as one text that is the same for the same attributes. Pure. */
import { damaged } from './damage.ts';

const MAGIC = 0xea020000;
const BODY_MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 32;
const ENTRY_BYTES = 16;
const EXTRA_AT = 128;

/** Attributes in an inode itself, and in its block of them, in the order of their names. @throws DiffError */
export function attributesOf(inode: Buffer, block: Buffer | undefined): string {
  const found: string[] = [];
  const extraBytes = inode.length > EXTRA_AT ? inode.readUInt16LE(EXTRA_AT) : 0;
  const body = inode.subarray(Math.min(inode.length, EXTRA_AT + extraBytes));
  if (body.length >= BODY_MAGIC_BYTES + 4 && body.readUInt32LE(0) === MAGIC) {
    const entries = body.subarray(BODY_MAGIC_BYTES);
    found.push(...entriesOf(entries, 0));
  }
  if (block !== undefined) {
    if (block.readUInt32LE(0) !== MAGIC) throw damaged('a block of attributes is none');
    found.push(...entriesOf(block, BLOCK_HEADER_BYTES));
  }
  return found.sort().join('\n');
}

function* entriesOf(bytes: Buffer, from: number): Generator<string> {
  for (let at = from; at + 4 <= bytes.length && bytes.readUInt32LE(at) !== 0;) {
    const nameBytes = bytes[at] ?? 0;
    const end = at + ENTRY_BYTES + nameBytes;
    if (end > bytes.length) throw damaged('attributes contradict themselves');
    const offset = bytes.readUInt16LE(at + 2);
    const elsewhere = bytes.readUInt32LE(at + 4); // an inode that holds a large value
    const size = bytes.readUInt32LE(at + 8);
    const isHere = elsewhere === 0;
    if (isHere && offset + size > bytes.length) throw damaged('attributes contradict themselves');
    const name = bytes.toString('hex', at + ENTRY_BYTES, end);
    const value = isHere ? bytes.toString('hex', offset, offset + size) : `${elsewhere} ${size}`;
    yield `${bytes[at + 1]} ${name} ${value}`;
    at = Math.ceil(end / 4) * 4;
  }
}
