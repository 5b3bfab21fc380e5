import { describe, expect, it } from 'vitest';
import { CallTable } from '../../../qmp/call-table.ts';
import type { Call } from '../../../qmp/call-table.ts';
import { MAX_IN_FLIGHT, MAX_OOB_IN_FLIGHT, MAX_WAITING_CALLS } from '../../../qmp/limits.ts';

/** A table, what it sent, and what its calls heard. */
function setUp() {
  const sent: string[] = [];
  const heard: string[] = [];
  const table = new CallTable((line) => sent.push(line));
  const call = (id: string, oob = false): Call => ({
    id,
    oob,
    line: id,
    onReply: () => heard.push(id),
    onFailure: () => heard.push(`${id} failed`),
  });
  return { table, sent, heard, call };
}

const OK = { ok: true, value: {} } as const;

describe('call table', () => {
  it('has a limit for each kind of call', () => {
    const { table, sent, call } = setUp();
    for (let i = 0; i < MAX_IN_FLIGHT + MAX_WAITING_CALLS; i += 1) table.start(call(`c${i}`));
    expect(sent).toHaveLength(MAX_IN_FLIGHT);
    expect(() => table.start(call('more'))).toThrow(`${MAX_WAITING_CALLS} commands are waiting`);
    for (let i = 0; i < MAX_OOB_IN_FLIGHT; i += 1) table.start(call(`o${i}`, true));
    expect(sent).toHaveLength(MAX_IN_FLIGHT + MAX_OOB_IN_FLIGHT);
    expect(() => table.start(call('more', true))).toThrow('out-of-band commands are in flight');
    // What was refused is not kept.
    expect(() => table.settle('more', OK)).toThrow('unknown id "more"');
  });

  it('gives the place of an abandoned call away only when it is answered', () => {
    const { table, sent, heard, call } = setUp();
    const calls = Array.from({ length: MAX_IN_FLIGHT + 2 }, (_, i) => call(`c${i}`));
    calls.forEach((each) => table.start(each));
    const [first, unsent, last] = [calls[0], calls.at(-2), calls.at(-1)];
    if (!first || !unsent || !last) throw new Error('there are more than two');
    table.abandon(first);
    table.abandon(unsent);
    expect(sent).toHaveLength(MAX_IN_FLIGHT);
    table.settle('c0', OK);
    expect(sent.at(-1)).toBe(last.id);
    expect(sent).not.toContain(unsent.id);
    expect(heard).toEqual([]);
    expect(() => table.settle('c0', OK)).toThrow('unknown id');
  });

  it('sends what waits, in order, while answers come in any', () => {
    const { table, sent, heard, call } = setUp();
    for (let i = 0; i < 20; i += 1) table.start(call(`c${i}`));
    for (const id of ['c7', 'c3', 'c8', 'c0']) table.settle(id, OK);
    expect(sent).toEqual(Array.from({ length: 12 }, (_, i) => `c${i}`));
    expect(heard).toEqual(['c7', 'c3', 'c8', 'c0']);
  });

  it('fails all, once', () => {
    const { table, heard, call } = setUp();
    for (let i = 0; i < MAX_IN_FLIGHT + 1; i += 1) table.start(call(`c${i}`));
    table.start(call('o', true));
    table.failAll();
    table.failAll();
    expect(heard).toHaveLength(MAX_IN_FLIGHT + 2);
    expect(heard.every((text) => text.endsWith(' failed'))).toBe(true);
  });
});
