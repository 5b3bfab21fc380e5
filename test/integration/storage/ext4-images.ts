/** File systems to be compared: made by mke2fs, changed by debugfs. Small ones, on the host's disk. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Disk } from '../../../src/storage/ext4/volume.ts';

/** A file system of what is in a directory. @param words more for mke2fs */
export async function makeExt4(path: string, from: string, ...words: string[]): Promise<void> {
  await execa('mke2fs', ['-q', '-F', '-t', 'ext4', ...words, '-d', from, path, '12M']);
}

/** Changes a file system that is not mounted. */
export async function debugfs(path: string, ...commands: string[]): Promise<void> {
  const input = commands.join('\n') + '\n';
  await execa('debugfs', ['-w', '-f', '-', path], { input });
}

/** As a qcow2 file beside it. */
export async function asQcow2(raw: string, ...words: string[]): Promise<string> {
  const path = `${raw}.qcow2`;
  await execa('qemu-img', ['convert', ...words, '-f', 'raw', '-O', 'qcow2', raw, path]);
  return path;
}

/** A disk in memory. Two of them have nothing in the same place. */
export function memoryDisk(bytes: Buffer, index = 1): Disk {
  return {
    sizeBytes: bytes.length,
    placeOf: (offset) => index * 2 ** 40 + offset,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/** A tree with a file of each kind that a user can make. */
export async function makeTree(dir: string): Promise<void> {
  await writeFile(join(dir, 'same'), 'the same');
  await writeFile(join(dir, 'text'), 'before');
  await writeFile(join(dir, 'big'), Buffer.alloc(300_000, 'big'));
  await execa('sh', ['-c', TREE], { cwd: dir });
}

const TREE = `mkdir -p sub/deep gone/below many
echo a > sub/deep/file; echo b > gone/below/file; echo c > moved; echo d > sub/mode
ln -s same link; ln same hard; truncate -s 5M sparse; echo tail >> sparse
ln -s $(printf '%0100d' 1) long; mkfifo pipe
i=0; while [ $i -lt 300 ]; do : > many/a-long-name-of-a-file-$i; i=$((i+1)); done`;

/** Bytes of a file. */
export const bytesOf = (path: string): Promise<Buffer> => readFile(path);
