import { describe, expect, it } from 'vitest';
import { parseEnvironment } from '../../../guest-agent/environment.ts';
import { findUser } from '../../../guest-agent/users.ts';

const PASSWD = `root:x:0:0:root:/root:/bin/bash
agent:x:1000:1000:,,,:/home/agent:/bin/bash
# a comment
broken
bare:x:1001:1002::
`;
const GROUP = `root:x:0:
agent:x:1000:
docker:x:990:bare,agent
audio:x:29:agent
agents:x:77:agents
`;

describe('findUser', () => {
  it.each(['agent', '1000'])('by %s', (key) => {
    expect(findUser(PASSWD, GROUP, key)).toEqual({
      ...{ name: 'agent', uid: 1000, gid: 1000, home: '/home/agent', shell: '/bin/bash' },
      groups: [990, 29],
    });
  });

  it('fills in what an entry leaves out', () => {
    expect(findUser(PASSWD, GROUP, 'bare')).toMatchObject({ home: '/', shell: '/bin/sh' });
  });

  it('takes a uid that nobody has, as docker does', () => {
    expect(findUser(PASSWD, GROUP, '4711')).toMatchObject({ uid: 4711, gid: 4711, groups: [] });
  });

  it.each([
    ['agent:audio', { uid: 1000, gid: 29, home: '/home/agent' }],
    ['1000:7', { name: 'agent', uid: 1000, gid: 7 }],
    ['4711:agent', { uid: 4711, gid: 1000 }],
  ])('with a group, which is then the only one: %s', (key, expected) => {
    expect(findUser(PASSWD, GROUP, key)).toMatchObject({ ...expected, groups: [] });
  });

  it.each([
    'nobody:agent',
    'agent:nobody',
    'agent:',
    ':agent',
    'nobody',
    '',
    'x',
    '4294967295',
    '-1',
    'broken',
    '0x0',
  ])('not %j', (key) => {
    expect(findUser(PASSWD, GROUP, key)).toBeUndefined();
  });
});

it('parseEnvironment takes values as they are', () => {
  const text = '# comment\n\nA=1\nB = x=y \nno equals sign\n=empty name\nC=\n';
  expect(parseEnvironment(text)).toEqual({ A: '1', B: ' x=y ', C: '' });
});
