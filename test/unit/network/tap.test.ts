/** What is done to a tap, by value. */
import { expect, it } from 'vitest';
import { raiseCommands, TAP_SYSCTLS6 } from '../../../src/network/tap.ts';

const MAC = '02:00:00:00:00:01';
const ENDS = { tap: 'qmpa1', gatewayAddress: '10.210.0.2', guestAddress: '10.210.0.3' };
const V6 = { gatewayAddress: 'fd12::2', guestAddress: 'fd12::3' };

it('goes up with its address, and knows its guest', () => {
  expect(raiseCommands(ENDS, MAC)).toEqual([
    'address add 10.210.0.2/31 dev qmpa1',
    'link set dev qmpa1 up',
    `neighbour replace 10.210.0.3 lladdr ${MAC} dev qmpa1 nud permanent`,
  ]);
});

it('the same in IPv6 where it has that: nobody is asked for anything', () => {
  expect(raiseCommands({ ...ENDS, v6: V6 }, MAC)).toEqual([
    'address add 10.210.0.2/31 dev qmpa1',
    'address add fd12::2/127 dev qmpa1 nodad',
    'link set dev qmpa1 up',
    `neighbour replace 10.210.0.3 lladdr ${MAC} dev qmpa1 nud permanent`,
    `neighbour replace fd12::3 lladdr ${MAC} dev qmpa1 nud permanent`,
  ]);
});

it('IPv6 is off on it until all else about it is set', () => {
  expect(TAP_SYSCTLS6.at(-1)).toEqual(['ipv6/conf/*/disable_ipv6', '0']);
});
