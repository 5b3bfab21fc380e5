import { expect, it } from 'vitest';
import { frameFilterCommands, framePrograms } from '../../../src/network/frame-filter.ts';

const VM = { tap: 'qmpb1', mac: '02:00:00:00:00:0a', address: '192.0.2.5' };
const programs = framePrograms(VM).map((text) => text.split(','));
const step = (text: string) => text.split(' ').map(Number) as [number, number, number, number];

it('asks for IPv4 who it is from, and all else goes on to the next', () => {
  expect(programs[0]).toEqual([
    '14',
    ...['128 0 0 0', '53 0 11 34'], // it has a whole head
    ...['48 0 0 4294963248', '21 0 9 0'], // and no tag
    ...['32 0 0 6', '21 0 7 33554432', '40 0 0 10', '21 0 5 10'], // from its MAC address
    ...['40 0 0 12', '21 0 3 2048', '32 0 0 26', '21 0 1 3221225989'],
    ...['6 0 0 0', '6 0 0 4294967295'],
  ]);
});

it('says how many instructions it has, jumps to the last one wherever it is not so, and reads nothing behind the end', () => {
  for (const [count, ...steps] of programs) {
    expect(steps).toHaveLength(Number(count));
    let isAtLeast = 0;
    for (const [index, text] of steps.entries()) {
      const [code, whereTrue, whereFalse, value] = step(text);
      if (code === 53) isAtLeast = value;
      if (code === 53 || code === 21)
        expect([whereTrue, index + 1 + whereFalse]).toEqual([0, steps.length - 1]);
      const bytes = { 32: 4, 40: 2 }[code];
      if (bytes !== undefined) expect(value + bytes).toBeLessThanOrEqual(isAtLeast);
    }
  }
  expect(programs.map((steps) => steps.slice(-2))).toEqual([
    ['6 0 0 0', '6 0 0 4294967295'],
    ['6 0 0 0', '6 0 0 2'],
  ]);
});

it('is put in the place of what there is, IPv4 first', () => {
  expect(frameFilterCommands(VM).map((text) => text.replace(/".*"/, ''))).toEqual([
    'qdisc replace dev qmpb1 clsact',
    'filter replace dev qmpb1 ingress protocol all prio 1 handle 1 bpf direct-action bytecode ',
    'filter replace dev qmpb1 ingress protocol all prio 2 handle 1 bpf direct-action bytecode ',
  ]);
});
