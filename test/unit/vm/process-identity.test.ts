import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import {
  findByArgument,
  identify,
  isAlive,
  ownIdentity,
  parseStat,
  signalProcess,
} from '../../../src/vm/process-identity.ts';

/** /proc/PID/stat with this command name and state, started at tick 4711. */
const stat = (name: string, state: string, threads = 1) =>
  `77 (${name}) ${state} 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 ${threads} 0 4711 9 9`;

describe('parseStat', () => {
  it.each(['qemu', 'a b', 'a) R 1 (b', ') S 1 1'])('reads past the name %j', (name) =>
    expect(parseStat(stat(name, 'S'))).toEqual({ startTicks: 4711 }),
  );
  it.each(['Z', 'X'])('%s is gone', (state) => expect(parseStat(stat('x', state))).toBeUndefined());
  it('a zombie whose threads have not all ended is there', () =>
    expect(parseStat(stat('x', 'Z', 2))).toEqual({ startTicks: 4711 }));
  it.each(['', 'nonsense', '1 (x)', '1 (x) S 1'])('%j says nothing', (text) =>
    expect(parseStat(text)).toBeUndefined(),
  );
});

describe('a process', () => {
  it('is itself, and no other that has its pid', () => {
    const own = ownIdentity();
    expect(isAlive(own)).toBe(true);
    expect(isAlive({ ...own, startTicks: own.startTicks + 1 })).toBe(false);
    expect(isAlive({ ...own, bootId: 'another boot' })).toBe(false);
    expect(signalProcess({ ...own, startTicks: own.startTicks + 1 }, 'SIGKILL')).toBe(false);
  });

  it('is signalled, found by its arguments, and gone when it has ended', async () => {
    const word = `mark-${process.pid}-${Date.now()}`;
    const child = spawn('/bin/sh', ['-c', 'read -r line', word], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const exited = once(child, 'exit');
    const identity = identify(child.pid ?? 0);
    if (identity === undefined) throw new Error('no child');
    await expect.poll(() => findByArgument((argv) => argv.includes(word))).toEqual([identity]);
    expect(signalProcess(identity, 'SIGKILL')).toBe(true);
    await exited;
    expect(isAlive(identity)).toBe(false);
    expect(signalProcess(identity, 'SIGKILL')).toBe(false);
  });

  it('that never was is none', () => expect(identify(2 ** 30)).toBeUndefined());
});
