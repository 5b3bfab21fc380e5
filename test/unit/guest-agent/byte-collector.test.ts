import { expect, it } from 'vitest';
import { ByteCollector } from '../../../guest-agent/byte-collector.ts';
import { cut, randomBuffer, seeded } from './random.ts';

it('gathers what comes in pieces', () => {
  const random = seeded(3);
  const bytes = randomBuffer(random, 10_000);
  const collector = new ByteCollector();
  for (const piece of cut(random, bytes, 700)) collector.push(piece);
  expect(collector.length).toBe(bytes.length);
  expect(collector.bytes().equals(bytes)).toBe(true);
});

it('keeps nothing alive of what it was given', () => {
  const collector = new ByteCollector();
  const large = Buffer.alloc(64 * 1024, 'x');
  collector.push(large.subarray(0, 1));
  expect(collector.bytes().buffer).not.toBe(large.buffer);
  expect(collector.bytes().buffer.byteLength).toBeLessThan(1024);
});
