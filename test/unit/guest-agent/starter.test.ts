import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { starterScript } from '../../../guest-agent/starter.ts';

const from = { HOME: '/home/agent', PATH: '/usr/bin:/bin', OLD: 'gone' };
const plain = { argv: ['true'], env: { HOME: '/home/agent', PATH: '/usr/bin:/bin' }, from };

it('tells the shell only what differs, and to become the command', () => {
  expect(starterScript({ ...plain, stdin: false })).toBe(
    "unset PWD OLDPWD OLD;exec 3<&- </dev/null;exec 'true'\n",
  );
  expect(
    starterScript({ ...plain, argv: ['a b', "it's"], env: { ...from, A: '$x' }, stdin: true }),
  ).toBe("unset PWD OLDPWD;export A='$x';exec 3<&-;exec 'a b' 'it'\\''s'\n");
});

it.each([
  ['no program', { argv: [] }],
  ['a program that looks like an option', { argv: ['-x'] }],
  ['an argument that is not ASCII', { argv: ['echo', 'é'] }],
  ['a NUL', { argv: ['echo', 'a\0b'] }],
  ['a name that is no shell variable', { env: { 'a-b': '1' } }],
  ['a name with a meaning to the shell', { env: { ...from, IFS: ':' } }],
  ['a value that is not ASCII', { env: { ...from, A: '\x81' } }],
  ['more than the pipe takes at once', { argv: ['echo', 'x'.repeat(40_000)] }],
])('is left to a plain start: %s', (_, change) => {
  expect(starterScript({ ...plain, stdin: false, ...change })).toBeUndefined();
});

it('means to the shell what was given', () => {
  const argv = [
    'printf',
    '%s|',
    '',
    '*',
    '~',
    '$(id)',
    '`id`',
    '\\',
    '"',
    "''",
    'a\n;b',
    '#',
    '\x01\x7f',
  ];
  const env = { ...from, ODD: `\t"'$HOME'\\\n` };
  const script = starterScript({ argv, env, from, stdin: true }) ?? '';
  const said = (text: string) =>
    execFileSync('/bin/sh', ['-c', text], { env: from, encoding: 'latin1' });
  expect(said(script)).toBe(`${argv.slice(2).join('|')}|`);
  const asked = starterScript({ argv: ['printenv', 'ODD'], env, from, stdin: true }) ?? '';
  expect(said(asked)).toBe(`${env.ODD}\n`);
});
