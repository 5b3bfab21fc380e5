/** What is generated is what the generator makes today. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { generate, keptSchemas } from '../../scripts/generate-qapi.ts';

const DIR = 'qmp/generated';

test('qmp/generated is made from the schemas in scripts/qapi/schemas', async () => {
  const made = generate(await keptSchemas());
  expect((await readdir(DIR)).sort()).toEqual([...made.keys()].sort());
  for (const [name, text] of made) {
    const kept = await readFile(join(DIR, name), 'utf8');
    // No diff of a thousand lines: what to do is enough.
    expect(kept === text, `${name} is stale: run npx tsx scripts/generate-qapi.ts`).toBe(true);
  }
});
