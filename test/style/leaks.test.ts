/** No tracked file may tell of the machine it was written on. */
import { readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

/**
 * Generic forms of what must not get into the repository. Written so that this file does not match
 * itself.
 */
const PATTERNS: readonly { what: string; pattern: RegExp }[] = [
  {
    what: 'host of a package mirror',
    pattern: /\b(?:deb|security|ftp|archive|snapshot)\.(?:debian|ubuntu)\.[a-z]+/,
  },
  {
    what: 'host of a package registry',
    pattern: /\bregistry\.(?:npmjs|yarnpkg)\.[a-z]+|\bpypi\.[a-z]+\/simple/,
  },
  { what: 'path of one machine', pattern: /(?<![\w.$}*-])\/(?:work|workspace)\/[\w.-]+/ },
  {
    what: "path in someone's home",
    pattern: /(?<![\w.$}*-])\/(?:home|Users)\/(?!agent\b|user\b|node\b|alice\b)[a-z][\w.-]{2,}/,
  },
  { what: 'private key', pattern: /-----BEGIN [A-Z ]*PRIVATE KEY-----/ },
  {
    what: 'credential in a URL',
    pattern: /https?:\/\/[^\s/:@'"`]+:(?!pass|secret|s3cr|\*|\$|<)[^\s/@'"`]{4,}@/,
  },
];

/** Text files the check reads; anything bigger is data. */
const MAX_FILE_BYTES = 2 * 1024 * 1024;

async function trackedFiles(): Promise<string[]> {
  const { stdout } = await execa('git', ['ls-files', '-z', '--cached']);
  return stdout.split('\0').filter((path) => path !== '');
}

function findingsIn(path: string, text: string): string[] {
  return text
    .split('\n')
    .flatMap((line, index) =>
      PATTERNS.filter(({ pattern }) => pattern.test(line)).map(
        ({ what }) => `${path}:${index + 1}: ${what}: ${line.trim().slice(0, 160)}`,
      ),
    );
}

describe('leaks', () => {
  test('no tracked file names package hosts, machine paths or secrets', async () => {
    const findings: string[] = [];
    for (const path of await trackedFiles()) {
      const content = await readFile(path).catch(() => undefined);
      if (content === undefined || content.length > MAX_FILE_BYTES || content.includes(0)) continue;
      findings.push(...findingsIn(path, content.toString('utf8')));
    }
    expect(findings.join('\n')).toBe('');
  });

  test.each([
    ['URIs: http://deb.' + 'debian.org/debian', 1],
    ['resolved: https://registry.' + 'npmjs.org/execa', 1],
    ['see /wo' + 'rk/main/docs', 1],
    ['/ho' + 'me/someone/checkout', 1],
    ['https://user:' + 'hunter22@proxy.example', 1],
    ['the guest has /home/agent and a network of its own', 0],
    ['node_modules/work/index.js', 0],
  ])('the check itself: %s', (line, expected) => {
    expect(findingsIn('sample', line)).toHaveLength(expected);
  });

  test('every script has an interpreter line and may be executed', async () => {
    const { stdout } = await execa('git', ['ls-files', '--stage', 'scripts', '.ci']);
    const bad: string[] = [];
    for (const line of stdout.split('\n')) {
      const [meta = '', path = ''] = line.split('\t');
      if (path.includes('.') && !path.startsWith('.ci/')) continue;
      const text = await readFile(path, 'utf8');
      if (!meta.startsWith('100755') || !text.startsWith('#!')) bad.push(path);
    }
    expect(bad).toEqual([]);
  });
});
