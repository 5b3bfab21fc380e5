import { expect, it } from 'vitest';
import { keptTableText } from '../../../nft/index.ts';

it('what comes from a tap without the mark of both tables is dropped, forwarded or to the host', () => {
  const rule = 'iifgroup 20813 meta mark & 0xff000000 != 0x71000000 drop';
  expect(keptTableText('keep')).toBe(
    `add table inet keep { flags owner; ` +
      `chain forward { type filter hook forward priority filter - 4; policy accept; ${rule}; }; ` +
      `chain input { type filter hook input priority filter - 4; policy accept; ${rule}; }; }`,
  );
});
