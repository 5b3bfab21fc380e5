import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { writeResolvConf } from '../../../guest-agent/resolv-conf.ts';

const TEXT = '# Written by qmp-agent.\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n';
const SERVERS = ['10.0.2.3', '10.0.2.4'];

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'resolv-'));
  mkdirSync(join(root, 'etc'));
});
afterEach(() => rmSync(root, { recursive: true }));

it('makes the file, or puts another in its place, and leaves nothing else', () => {
  const path = join(root, 'etc/resolv.conf');
  writeResolvConf(path, SERVERS);
  expect(readFileSync(path, 'utf8')).toBe(TEXT);
  writeFileSync(path, 'nameserver 192.0.2.1\n');
  writeFileSync(`${path}.qmp-agent`, 'of an agent that died');
  writeResolvConf(path, SERVERS);
  expect(readFileSync(path, 'utf8')).toBe(TEXT);
  expect(readdirSync(join(root, 'etc'))).toEqual(['resolv.conf']);
});

it('writes nothing where it is so already', () => {
  const path = join(root, 'etc/resolv.conf');
  writeResolvConf(path, SERVERS);
  chmodSync(path, 0o600);
  const before = statSync(path).ino;
  writeResolvConf(path, SERVERS);
  expect(statSync(path).ino).toBe(before);
});

it('writes what a link leads to, and keeps the link', () => {
  const path = join(root, 'etc/resolv.conf');
  symlinkSync('../run/resolver/stub.conf', path);
  writeResolvConf(path, SERVERS);
  expect(lstatSync(path).isSymbolicLink()).toBe(true);
  expect(readFileSync(join(root, 'run/resolver/stub.conf'), 'utf8')).toBe(TEXT);
});

it('refuses a link to itself', () => {
  const path = join(root, 'etc/resolv.conf');
  symlinkSync('resolv.conf', path);
  expect(() => writeResolvConf(path, SERVERS)).toThrow(expect.objectContaining({ code: 'ELOOP' }));
});
