import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { events, type EventOf } from '../../../src/events.ts';
import {
  frameFilterCommands,
  framePrograms,
  hasFrameFilter,
  raiseFrameFilter,
} from '../../../src/network/frame-filter.ts';

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

describe('a refusal', () => {
  let dir: string | undefined;
  afterEach(async () => {
    vi.unstubAllEnvs();
    if (dir !== undefined) await rm(dir, { recursive: true });
    dir = undefined;
  });
  /** A host whose `tc` says that; undefined: it has none. */
  async function host(says: string | undefined): Promise<void> {
    dir = await mkdtemp(join(tmpdir(), 'qa-tc-'));
    const text = `#!/bin/sh\necho '${says}' >&2\necho 'Command failed -:1' >&2\nexit 1\n`;
    if (says !== undefined) await writeFile(join(dir, 'tc'), text, { mode: 0o755 });
    vi.stubEnv('PATH', dir);
  }
  const warnings: EventOf<'host.warning'>[] = [];
  events.subscribe((event) => void (event.type === 'host.warning' && warnings.push(event)));

  it.each([
    'Error: TC classifier not found.',
    'Error: Specified qdisc kind is unknown.',
    'Unknown filter "bpf", hence option "direct-action" is unparsable',
    'RTNETLINK answers: No such file or directory',
    'RTNETLINK answers: Operation not supported',
    undefined,
  ])('is what a host can do, where that is %j, and is told of once', async (says) => {
    await host(says);
    expect(await raiseFrameFilter(VM)).toBe(false);
    expect(await hasFrameFilter(VM)).toBe(false);
    expect(warnings).toEqual([
      expect.objectContaining({
        code: 'network.frame-filter',
        message: expect.stringMatching(/nft flush ruleset.*TC classifier not found/) as string,
        hint: expect.stringMatching(/modprobe.*qmp-agent gc/) as string,
      }),
    ]);
  });

  it.each([
    'RTNETLINK answers: Cannot allocate memory',
    'Error: Protocol mismatch for filter with specified priority.',
    'What is "bytecode"?',
    'Cannot find device "qmpb1"',
  ])('%j is an error', async (says) => {
    await host(says);
    const isAnError = { code: 'ERR_NETWORK_INTERFACE', message: `tc: ${says}` };
    await expect(raiseFrameFilter(VM)).rejects.toMatchObject(isAnError);
    if (says.startsWith('Cannot find')) expect(await hasFrameFilter(VM)).toBe(false);
    else await expect(hasFrameFilter(VM)).rejects.toMatchObject(isAnError);
  });
});
