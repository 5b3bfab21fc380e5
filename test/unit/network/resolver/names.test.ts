import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../../../src/errors.ts';
import { NamePolicy, parentOf, parsePattern } from '../../../../src/network/resolver/names.ts';

describe('patterns', () => {
  it.each([
    ['example.org', { below: false, name: 'example.org' }],
    ['Example.ORG.', { below: false, name: 'example.org' }],
    ['*.Example.org', { below: true, name: 'example.org' }],
    ['*', { below: true, name: '' }],
    ['bücher.example', { below: false, name: 'xn--bcher-kva.example' }],
    ['*.BÜCHER.example', { below: true, name: 'xn--bcher-kva.example' }],
    ['xn--bcher-kva.example', { below: false, name: 'xn--bcher-kva.example' }],
    ['_acme-challenge.example.org', { below: false, name: '_acme-challenge.example.org' }],
    ['localhost', { below: false, name: 'localhost' }],
  ])('%s', (pattern, parsed) => {
    expect(parsePattern(pattern, 'p')).toEqual(parsed);
  });

  it.each([
    '',
    '.',
    '*.',
    '*.*.example.org',
    'foo.*.org',
    '*example.org',
    'a..b',
    '.example.org',
    'ex ample.org',
    'ex%61mple.org',
    'https://example.org',
    'example.org:443',
    '192.0.2.1',
    '127.1',
    '10.0.0.0/8',
    '2001:db8::1',
    '0x7f.1',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(127)}example`,
    'xn--a.example',
    'a\0b.example',
  ])('refuses %j', (pattern) => {
    const parse = () => parsePattern(pattern, 'allowDomains[3]');
    expect(parse).toThrow(ConfigError);
    expect(parse).toThrow(/allowDomains\[3\]/);
  });

  it('says what to do with an address', () => {
    expect.assertions(1);
    try {
      parsePattern('192.0.2.0/24', 'p');
    } catch (error) {
      expect((error as ConfigError).hint).toContain('CIDR');
    }
  });

  it('refuses a list without end', () => {
    const many = Array.from({ length: 10_001 }, (_, index) => `h${index}.example.org`);
    expect(() => new NamePolicy(many)).toThrow(/10001 patterns/);
  });
});

describe('decisions', () => {
  const policy = new NamePolicy(
    ['example.org', '*.example.net', '*.Deep.a.example'],
    ['bad.example.net', '*.worse.example.net'],
  );

  it.each([
    ['example.org', 'allow example.org'],
    ['a.example.net', 'allow *.example.net'],
    ['a.b.c.example.net', 'allow *.example.net'],
    ['worse.example.net', 'allow *.example.net'],
    ['x.deep.a.example', 'allow *.Deep.a.example'],
  ])('allows %s', (name, rule) => {
    expect(policy.decide(name)).toEqual({ allowed: true, rule });
  });

  it.each([
    ['a.example.org', 'not-allowed'],
    ['example.net', 'not-allowed'], // *. is what is below, not the name itself
    ['badexample.org', 'not-allowed'],
    ['example.org.evil.test', 'not-allowed'],
    ['aexample.net', 'not-allowed'],
    ['org', 'not-allowed'],
    ['', 'not-allowed'],
    ['bad.example.net', 'deny bad.example.net'],
    ['x.worse.example.net', 'deny *.worse.example.net'],
    ['a.example', 'not-allowed'],
  ])('does not allow %j', (name, rule) => {
    expect(policy.decide(name)).toEqual({ allowed: false, rule });
  });

  it('allows all by default, the root included', () => {
    const all = new NamePolicy();
    expect(all.decide('any.thing.example')).toEqual({ allowed: true, rule: 'allow *' });
    expect(all.decide('')).toEqual({ allowed: true, rule: 'allow *' });
  });

  it('allows nothing with an empty list, and denied names win over *', () => {
    expect(new NamePolicy([]).decide('example.org').allowed).toBe(false);
    expect(new NamePolicy(['*'], ['*.example.org']).decide('a.example.org').rule).toBe(
      'deny *.example.org',
    );
  });
});

it('takes the last two labels for the parent', () => {
  expect(parentOf('a.b.example.org')).toBe('example.org');
  expect(parentOf('org')).toBe('org');
  expect(parentOf('')).toBe('');
});
