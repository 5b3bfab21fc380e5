import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { putText } from '../../../guest-agent/put-text.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'put-text-'));
});
afterEach(() => rmSync(root, { recursive: true }));

it.each([
  ['as long', 'fedcba9876543210\n'],
  ['shorter', 'dcba\n'],
  ['longer', 'fedcba9876543210'.repeat(1000)],
  ['empty', ''],
  ['of more bytes than characters', 'ä'.repeat(9)],
])('a file gets a text that is %s, and stays the file that it was', (_, text) => {
  const path = join(root, 'machine-id');
  writeFileSync(path, '0123456789abcdef\n', { mode: 0o600 });
  const { ino, mode } = statSync(path);
  putText(path, text);
  expect(readFileSync(path, 'utf8')).toBe(text);
  expect(statSync(path)).toMatchObject({ ino, mode });
});

it('a file that is not there is made, with the bits asked for', () => {
  const path = join(root, 'boot_id');
  putText(path, 'text\n', 0o444);
  expect(readFileSync(path, 'utf8')).toBe('text\n');
  expect(statSync(path).mode & 0o777).toBe(0o444);
});

it('what cannot be written is named', () => {
  const path = join(root, 'machine-id');
  mkdirSync(path);
  expect(() => putText(path, 'text')).toThrow(path);
});
