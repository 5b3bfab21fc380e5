import { describe, expect, test } from 'vitest';
import { readFailure } from '../../../nft/failure.ts';
import { causeMark, ruleMark } from '../../../nft/marks.ts';
import {
  countersByTap,
  findRemains,
  foreignDrops,
  listed,
  parseReply,
} from '../../../nft/reply.ts';

const metainfo = { metainfo: { version: '1.0.6', json_schema_version: 1 } };
const set = (family: string, name: string, elem: unknown[], kind = 'set') => ({
  [kind]: { family, table: 'qmp_agent', name, elem },
});
const counted = (val: unknown, packets: number) => ({
  elem: { val, counter: { packets, bytes: packets * 100 } },
});
const reply = (...objects: object[]) =>
  parseReply(JSON.stringify({ nftables: [metainfo, ...objects] }));

describe("nft's answers", () => {
  test('finds chains of others that drop', () => {
    const chain = (o: object) => ({
      chain: { family: 'ip', hook: 'forward', policy: 'drop', ...o },
    });
    const chains = reply(
      chain({ table: 'filter', name: 'FORWARD' }),
      chain({ table: 'filter', name: 'INPUT', hook: 'input' }),
      chain({ table: 'nat', name: 'FORWARD', policy: 'accept' }),
      chain({ table: 'qmp_agent', name: 'forward' }),
    );
    expect(foreignDrops(chains)).toEqual(['ip filter FORWARD']);
  });

  test('counters by tap', () => {
    const all = countersByTap(
      listed(
        reply(
          set('inet', 'sent', [counted('t1', 3), counted('t2', 5)]),
          set('inet', 'received', [counted('t1', 4)]),
          set('inet', 'live', [counted({ concat: ['t1', ruleMark(2, 9)] }, 7)]),
          set('inet', 'denied', [
            counted({ concat: ['t1', causeMark('policy')] }, 2),
            counted({ concat: ['t1', ruleMark(2, 11)] }, 6),
          ]),
          set('netdev', 'denied', [counted({ concat: ['t1', causeMark('arp')] }, 1)]),
          set('netdev', 'logged', [counted('t1', 1)]),
        ),
      ),
    );
    expect(all.get('t2')!.sent).toEqual({ packets: 5, bytes: 500 });
    expect(all.get('t1')).toMatchObject({
      sent: { packets: 3 },
      received: { packets: 4 },
      denied: { packets: 9, bytes: 900 },
      logged: { packets: 1 },
    });
    expect([...all.get('t1')!.byRule]).toEqual([[9, { packets: 7, bytes: 700 }]]);
    expect([...all.get('t1')!.deniedByRule.keys()]).toEqual([11]);
    expect([...all.get('t1')!.deniedByCause.keys()]).toEqual(['policy', 'arp']);
  });

  test('what is left of each VM', () => {
    const chain = (family: string, name: string) => ({
      chain: { family, table: 'qmp_agent', name },
    });
    const remains = findRemains(
      reply(
        set('inet', 'self', [{ concat: ['t1', '10.0.0.2'] }, { concat: ['t2', '10.0.0.6'] }]),
        set('inet', 'nat', ['10.0.0.2', '10.0.0.6']),
        set('inet', 'policies', [['t1', { jump: { target: 'out_t1' } }]], 'map'),
        set('inet', 'self6', [{ concat: ['t1', 'fd00::3'] }]),
        set('inet', 'nat6', ['fd00::3']),
        set('netdev', 'v6', ['t1']),
        set('inet', 'to6_t1_7', [{ elem: { val: '2001:db8::1', timeout: 60, expires: 5 } }]),
        set('inet', 'to_t1_5', [{ elem: { val: '192.0.2.1', timeout: 60, expires: 5 } }]),
        { limit: { family: 'inet', table: 'qmp_agent', name: 'up_t1' } },
        chain('inet', 'out_t1'),
        chain('netdev', 'in_t3'),
        chain('netdev', 'guard'),
      ),
    );
    expect(remains.map(({ tap }) => tap)).toEqual(['t1', 't2', 't3']);
    expect(remains[0]).toMatchObject({
      dynamicRuleIds: [5],
      dynamicRuleIds6: [7],
      limits: ['up'],
    });
    expect(remains[0]!.elements.map(({ set: { name }, elem }) => [name, elem])).toEqual([
      ['self', [{ concat: ['t1', '10.0.0.2'] }]],
      ['nat', ['10.0.0.2']],
      ['self6', [{ concat: ['t1', 'fd00::3'] }]],
      ['nat6', ['fd00::3']],
      ['v6', ['t1']],
      ['policies', [['t1', { jump: { target: 'out_t1' } }]]],
    ]);
    expect(remains[2]).toEqual({
      tap: 't3',
      elements: [],
      dynamicRuleIds: [],
      dynamicRuleIds6: [],
      limits: [],
    });
  });

  test('of nothing', () => {
    expect(parseReply('')).toEqual({ nftables: [] });
    expect(findRemains(reply())).toEqual([]);
  });

  test("other tables' sets are not looked at", () => {
    const other = {
      set: { family: 'inet', table: 'other', name: 'sent', elem: [counted('t1', 3)] },
    };
    expect(countersByTap(listed(reply(other))).size).toBe(0);
  });
});

describe("nft's failures", () => {
  const word = 'internal:0:0-0: Error: Could not process rule: ';
  test.each([
    ['No such file or directory', 'missing'],
    ['File exists', 'exists'],
    ['Device or resource busy', 'in-use'],
    ['Too many open files in system', 'full'],
    ['Invalid argument', 'refused'],
  ])('%s', (text, reason) => {
    const error = readFailure({ stderr: `${word}${text}\n`, exitCode: 1 });
    expect(error).toMatchObject({ code: 'ERR_NETWORK_RULES', reason });
    expect(error.message).toBe(`nft: Could not process rule: ${text}`);
  });

  test('no permission, and no nft', () => {
    const stderr =
      'Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed';
    expect(readFailure({ stderr, exitCode: 1 })).toMatchObject({ code: 'ERR_HOST_PERMISSION' });
    expect(readFailure({ stderr: '', code: 'ENOENT' })).toMatchObject({ code: 'ERR_HOST_TOOL' });
  });
});
