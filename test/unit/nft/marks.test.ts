import { describe, expect, test } from 'vitest';
import {
  ALLOW_PREFIX,
  causeMark,
  DENIAL_CAUSES,
  type DenialCause,
  denyPrefix,
  readLogPrefix,
  readMark,
  ruleMark,
} from '../../../nft/marks.ts';

const CAUSES = Object.keys(DENIAL_CAUSES) as DenialCause[];

describe('marks', () => {
  test.each([
    [0, 1, 0x71000001],
    [7, 4095, 0x71007fff],
    [4094, 4095, 0x71ffefff],
  ])('generation %i, rule %i', (generation, ruleId, mark) => {
    expect(ruleMark(generation, ruleId)).toBe(mark);
    expect(readMark(mark)).toEqual({ kind: 'rule', generation, ruleId });
  });

  test.each(CAUSES)('cause %s', (cause) => {
    expect(readMark(causeMark(cause))).toEqual({ kind: 'cause', cause });
    expect(readLogPrefix(denyPrefix(cause))).toEqual({ verdict: 'deny', cause });
  });

  test('no two causes have the same mark', () => {
    expect(new Set(CAUSES.map(causeMark)).size).toBe(CAUSES.length);
  });

  test.each([0, 1, 0x4000, 0x71000000, 0x72000001, 0x71fff000, 0x71fff7ff])(
    '%i is none',
    (mark) => {
      expect(readMark(mark)).toBeUndefined();
    },
  );

  test('prefixes of others are none', () => {
    expect(readLogPrefix(ALLOW_PREFIX)).toEqual({ verdict: 'allow' });
    for (const prefix of ['', 'IN=eth0', 'qmp-agent deny ', 'qmp-agent deny toString: ']) {
      expect(readLogPrefix(prefix)).toBeUndefined();
    }
  });
});
