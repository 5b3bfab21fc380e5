import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { LogCapture } from '../../../../src/network/traffic/log-capture.ts';

/** One that nobody reads. */
const GROUP = 1;

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qa-capture-'));
  vi.stubEnv('PATH', `${dir}:${process.env['PATH'] ?? ''}`);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true });
});

/** A stream of one packet that was logged with a prefix of one letter, as `printf` of the shell writes it. */
function streamOf(prefix: string): string {
  const attribute = [0, 0, 0, 0, 6, 0, 10, 0, prefix.charCodeAt(0), 0, 0, 0];
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4);
  const packetHead = Buffer.alloc(16);
  packetHead.writeUInt32LE(attribute.length, 8);
  const bytes = [...head, ...packetHead, ...attribute];
  return bytes.map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}

it('is drained when tcpdump has passed on what it has taken, however long that takes it', async () => {
  const script = `#!/bin/sh
n=0
while [ $n -lt 50000 ]; do n=$((n + 1)); done
printf '${streamOf('x')}'
exec sleep 60
`;
  await writeFile(join(dir, 'tcpdump'), script);
  await chmod(join(dir, 'tcpdump'), 0o755);
  const heard: string[] = [];
  await using capture = new LogCapture({
    group: GROUP,
    onPacket: ({ prefix }) => heard.push(prefix),
    say: () => undefined,
  }).start();
  await capture.drain();
  expect(heard).toEqual(['x']);
});
