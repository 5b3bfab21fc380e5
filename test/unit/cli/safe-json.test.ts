import { describe, expect, it } from 'vitest';
import { safeJson } from '../../../src/cli/safe-json.ts';

/** What a terminal obeys, or shows as what it is not: C0, DEL, C1, bidi, separators, unassigned, private, tags. */
const ODD =
  '\u001b[2J\u007f\u009b31m\u0085\u202etxt\u2028\u2029\ufeff\u200b\u0378\ue000\u{e0041}\ud800"\\';

describe('safeJson', () => {
  it('prints nothing that is not printable, and says the same', () => {
    for (const indent of [undefined, 2]) {
      const text = safeJson({ path: ODD, names: [ODD] }, indent);
      expect(text.replaceAll('\n', '')).toMatch(/^[^\p{C}\p{Zl}\p{Zp}]*$/u);
      expect(JSON.parse(text)).toEqual({ path: ODD, names: [ODD] });
    }
    expect(safeJson({ path: '/\u009b' })).toBe(String.raw`{"path":"/\u009b"}`);
  });

  it('leaves alone what is', () => {
    const plain = { name: 'ü — 漢字 🎉', lines: 'a\nb', none: null, left: undefined };
    expect(safeJson(plain)).toBe(JSON.stringify(plain));
    expect(safeJson(plain, 2)).toBe(JSON.stringify(plain, undefined, 2));
    expect(safeJson(undefined)).toBe('null');
  });
});
