import { expect, it } from 'vitest';
import { waitingIn } from '../../../../src/network/traffic/nflog-queue.ts';

/** As kernel 6.1 writes them. */
const groups = `20813   4711     0 2 65535    100  1
20814   4712     0 2 65535    100  1
20815   4713     0 2 65535    100  1
`;
const sockets = `sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4711       00000000 99       0        0     2        0        4
0000000000000000 12  4711       00000000 0        0        0     2        0        493
0000000000000000 12  4712       00000000 2304     0        0     2        0        495
`;

it.each([
  [20813, 0],
  [20814, 2304],
  [20815, 0], // its reader has just gone
  [20816, 0],
])('of group %i so many bytes wait for its reader: %i', (group, bytes) =>
  expect(waitingIn({ groups, sockets }, group)).toBe(bytes),
);

it('of a kernel that says nothing nothing waits', () =>
  expect(waitingIn({ groups: '', sockets: '' }, 20813)).toBe(0));
