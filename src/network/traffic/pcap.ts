/**
 * The classic pcap format, as tcpdump writes it on this machine (pcap-savefile(5)): a head, and packets with a head
 * each. Pure.
 */

/** Before the first packet. */
export const PCAP_HEAD_BYTES = 24;
/** Before each packet. */
export const PACKET_HEAD_BYTES = 16;
/** Most that tcpdump takes of a packet, whatever it is told (`MAXIMUM_SNAPLEN` of its netdissect.h). */
export const MAX_SNAPLEN = 262_144;
/** Little-endian, as tcpdump writes on x86: with microseconds, or with nanoseconds. */
const MAGIC = { micro: 0xa1b2c3d4, nano: 0xa1b23c4d } as const;

/** One packet. Its buffers are views of what the reader was given: to be copied by who keeps them. */
export interface PcapPacket {
  /** What was taken of it. */
  readonly data: Buffer;
  /** ms since the epoch, by the kernel's clock. */
  readonly timeMs: number;
  /** As it stands in the stream, with its head. */
  readonly record: Buffer;
}

/** Takes a pcap stream apart, whatever its chunks. */
export class PcapReader {
  readonly #maxPacketBytes: number;
  #rest: Buffer = Buffer.alloc(0);
  #head: Buffer | undefined;
  #perMs = 0;

  /** @param maxPacketBytes what a packet holds at most. Default {@link MAX_SNAPLEN} */
  constructor(maxPacketBytes = MAX_SNAPLEN) {
    this.#maxPacketBytes = maxPacketBytes;
  }

  /** The stream's own head; undefined until it is there. */
  get head(): Buffer | undefined {
    return this.#head;
  }

  /**
   * @returns the packets that are whole now
   * @throws Error it is no pcap stream
   */
  push(chunk: Buffer): PcapPacket[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const packets: PcapPacket[] = [];
    if (this.#head === undefined && !this.#readHead()) return packets;
    let at = 0;
    while (at + PACKET_HEAD_BYTES <= this.#rest.length) {
      const length = this.#rest.readUInt32LE(at + 8);
      if (length > this.#maxPacketBytes) throw new Error(`a packet of ${length} bytes`);
      const begin = at + PACKET_HEAD_BYTES;
      const end = begin + length;
      if (end > this.#rest.length) break;
      const timeMs =
        this.#rest.readUInt32LE(at) * 1000 + this.#rest.readUInt32LE(at + 4) / this.#perMs;
      const data = this.#rest.subarray(begin, end);
      packets.push({ data, timeMs, record: this.#rest.subarray(at, end) });
      at = end;
    }
    this.#rest = this.#rest.subarray(at);
    return packets;
  }

  /** @returns whether it is there */
  #readHead(): boolean {
    if (this.#rest.length < PCAP_HEAD_BYTES) return false;
    const magic = this.#rest.readUInt32LE(0);
    if (magic === MAGIC.micro) this.#perMs = 1e3;
    else if (magic === MAGIC.nano) this.#perMs = 1e6;
    else throw new Error('no pcap stream');
    this.#head = Buffer.from(this.#rest.subarray(0, PCAP_HEAD_BYTES));
    this.#rest = this.#rest.subarray(PCAP_HEAD_BYTES);
    return true;
  }
}
