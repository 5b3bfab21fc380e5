import { describe, expect, it } from 'vitest';
import { PCAP_HEAD_BYTES, PcapReader } from '../../../src/network/traffic/pcap.ts';
import { tcpdumpArgv } from '../../../src/network/traffic/tcpdump.ts';

function head(magic = 0xa1b2c3d4): Buffer {
  const bytes = Buffer.alloc(PCAP_HEAD_BYTES);
  bytes.writeUInt32LE(magic, 0);
  return bytes;
}

function record(text: string, { seconds = 0, fraction = 0 } = {}): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(seconds, 0);
  bytes.writeUInt32LE(fraction, 4);
  bytes.writeUInt32LE(text.length, 8);
  bytes.writeUInt32LE(text.length, 12);
  return Buffer.concat([bytes, Buffer.from(text)]);
}

describe('PcapReader', () => {
  const stream = Buffer.concat([head(), record('one'), record(''), record('three')]);

  it.each([1, 7, 24, 25, 1000])('takes a stream apart that comes by %d bytes', (size) => {
    const reader = new PcapReader();
    const packets = [];
    for (let at = 0; at < stream.length; at += size)
      packets.push(...reader.push(stream.subarray(at, at + size)));
    expect(packets.map(({ data }) => data.toString())).toEqual(['one', '', 'three']);
    expect(Buffer.concat([reader.head!, ...packets.map((packet) => packet.record)])).toEqual(
      stream,
    );
  });

  it.each([
    [0xa1b2c3d4, 1_500_250],
    [0xa1b23c4d, 1_500_000.25],
  ])('reads the times of magic %x', (magic, timeMs) => {
    const bytes = Buffer.concat([head(magic), record('x', { seconds: 1500, fraction: 250_000 })]);
    expect(new PcapReader().push(bytes)[0]?.timeMs).toBe(timeMs);
  });

  it('has no head, and gives none, before all of it is there', () => {
    const reader = new PcapReader();
    expect(reader.push(stream.subarray(0, PCAP_HEAD_BYTES - 1))).toEqual([]);
    expect(reader.head).toBeUndefined();
  });

  it('refuses what is no pcap, and packets that are longer than they may be', () => {
    expect(() => new PcapReader().push(Buffer.alloc(24))).toThrow('no pcap stream');
    const long = Buffer.concat([head(), record('four')]);
    expect(new PcapReader(4).push(long)).toHaveLength(1);
    expect(() => new PcapReader(3).push(long)).toThrow('a packet of 4 bytes');
  });
});

describe('tcpdumpArgv', () => {
  it('has each packet at once on stdout, as root, of a device that stays as it is', () => {
    const words = ['-p', '-Z', 'root', '-n', '-U', '--immediate-mode'];
    expect(tcpdumpArgv({ device: 'nflog:5' })).toEqual([
      ...['tcpdump', '-i', 'nflog:5', ...words, '-w', '-'],
    ]);
    expect(tcpdumpArgv({ device: 'qmpa1', snaplen: 96, bufferKib: 4096 })).toEqual([
      ...['tcpdump', '-i', 'qmpa1', ...words, '-s', '96', '-B', '4096', '-w', '-'],
    ]);
  });
});
