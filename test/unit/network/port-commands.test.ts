/** Ports of a bridge. */
import { expect, it } from 'vitest';
import { portCommands } from '../../../src/network/tap.ts';

const addressOf = (mac: string) => {
  const owner = { state: 'aa', vmId: 'bb' };
  const { make } = portCommands('qmpb1', { owner, mac, bridge: 'br0' });
  return / address (\S+) /.exec(make.join('\n'))?.[1];
};

it('a port’s address is above those of others, so that its bridge keeps the one that it has', () => {
  expect(addressOf('02:00:00:00:00:0a')).toBe('fe:00:00:00:00:0a');
});

it.each([
  ['fe:00:00:00:00:0a', 'fe:00:00:00:00:0b'],
  ['fe:00:00:00:00:0f', 'fe:00:00:00:00:0e'],
])('a port is never %s where that is its guest', (mac, port) => {
  expect(addressOf(mac)).toBe(port);
});
