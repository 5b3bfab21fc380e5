/** What is in an image's file system, read without booting or mounting it. */
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import type { Image } from '../../../src/image/index.ts';

const env = { PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };

/** A file's inode, as far as tests look at it. */
export interface DiskFile {
  readonly type: string;
  /** Octal, without leading zeros. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly inode: number;
  /** `major:minor` of a device node. */
  readonly device: string | undefined;
}

/** An image's file system as a raw file in a test's directory. */
export class DiskContents implements AsyncDisposable {
  readonly #raw: string;

  private constructor(raw: string) {
    this.#raw = raw;
  }

  static async open(image: Image, dir: string): Promise<DiskContents> {
    const raw = path.join(dir, `${image.name}-${image.id}.raw`);
    await execa('qemu-img', ['convert', '-O', 'raw', image.rootfsPath, raw]);
    return new DiskContents(raw);
  }

  async cat(file: string): Promise<string> {
    return this.#debugfs(`cat ${file}`);
  }

  /** Undefined where there is no such file. */
  async stat(file: string): Promise<DiskFile | undefined> {
    const text = await this.#debugfs(`stat ${file}`);
    const field = (pattern: RegExp): string => pattern.exec(text)?.[1] ?? '';
    if (!text.startsWith('Inode:')) return undefined;
    const device = /Device major\/minor number: 0*(\d+):0*(\d+)/.exec(text);
    return {
      type: field(/Type: (\w+(?: \w+)*)/),
      mode: field(/Mode: +0*(\d+)/),
      uid: Number(field(/User: +(\d+)/)),
      gid: Number(field(/Group: +(\d+)/)),
      inode: Number(field(/Inode: (\d+)/)),
      device: device === null ? undefined : `${device[1]}:${device[2]}`,
    };
  }

  /** Names in a directory. */
  async list(dir: string): Promise<string[]> {
    const text = await this.#debugfs(`ls -p ${dir}`);
    const names = text.split('\n').map((line) => line.split('/')[5] ?? '');
    return names.filter((name) => name !== '' && name !== '.' && name !== '..').sort();
  }

  /** Hex bytes of an extended attribute, as debugfs prints them. */
  async attribute(file: string, name: string): Promise<string> {
    return this.#debugfs(`ea_get -x ${file} ${name}`);
  }

  /** Whether a text is anywhere on the disk, in free space too. */
  async holds(text: string): Promise<boolean> {
    const needle = Buffer.from(text);
    let tail = Buffer.alloc(0);
    for await (const chunk of createReadStream(this.#raw, { highWaterMark: 4 * 1024 * 1024 })) {
      const window = Buffer.concat([tail, chunk as Buffer]);
      if (window.includes(needle)) return true;
      tail = window.subarray(Math.max(0, window.length - needle.length));
    }
    return false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#raw, { force: true });
  }

  async #debugfs(command: string): Promise<string> {
    return (await execa('debugfs', ['-R', command, this.#raw], { env })).stdout;
  }
}
