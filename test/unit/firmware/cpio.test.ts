import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { charDevice, cpioArchive, directory, file, symlink } from '../../../firmware/cpio.ts';

const entries = [
  directory('bin', 0o750),
  file('bin/tool', Buffer.from('#!/bin/sh\necho hi\n'), 0o755),
  file('empty', Buffer.alloc(0)),
  file('odd', Buffer.from('12345')), // sizes that need padding
  symlink('link', 'bin/tool'),
];

describe('cpioArchive', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'cpio-'));
  });
  afterEach(() => {
    rmSync(dir, { recursive: true });
  });

  it('gives the bytes of the newc format', () => {
    const archive = cpioArchive([file('a', Buffer.from('xyz'), 0o644)]);
    expect(archive.toString('latin1', 0, 120)).toBe(
      '070701' +
        '00000001' + // inode
        '000081A4' + // regular file, 0644
        '00000000'.repeat(2) + // root
        '00000001' + // links
        '00000000' + // mtime
        '00000003' + // size
        '00000000'.repeat(4) + // devices
        '00000002' + // name with NUL
        '00000000' + // checksum
        'a\0' +
        'xyz\0' +
        '0707',
    );
    expect(archive.length % 4).toBe(0);
    expect(archive.toString('latin1')).toContain('TRAILER!!!');
  });

  it('is read back by GNU cpio', () => {
    execFileSync('cpio', ['--extract', '--quiet'], { cwd: dir, input: cpioArchive(entries) });
    expect(readFileSync(path.join(dir, 'bin/tool'), 'utf8')).toBe('#!/bin/sh\necho hi\n');
    expect(statSync(path.join(dir, 'bin/tool')).mode & 0o7777).toBe(0o755);
    expect(statSync(path.join(dir, 'bin')).mode & 0o7777).toBe(0o750);
    expect(statSync(path.join(dir, 'empty')).size).toBe(0);
    expect(readFileSync(path.join(dir, 'odd'), 'utf8')).toBe('12345');
    expect(readlinkSync(path.join(dir, 'link'))).toBe('bin/tool');
  });

  it('lists device nodes with their numbers', () => {
    const archive = cpioArchive([directory('dev'), charDevice('dev/console', 5, 1)]);
    const listing = execFileSync('cpio', ['-itv', '--quiet'], { input: archive, encoding: 'utf8' });
    expect(listing).toMatch(/^crw------- .* 5, +1 .*dev\/console$/m);
  });

  it('gives equal bytes for equal entries', () => {
    expect(cpioArchive(entries).equals(cpioArchive(entries))).toBe(true);
  });

  it.each(['', '/etc/passwd', 'a\0b', 'TRAILER!!!'])('refuses the name %j', (name) => {
    expect(() => cpioArchive([file(name, Buffer.alloc(1))])).toThrow(RangeError);
  });
});
