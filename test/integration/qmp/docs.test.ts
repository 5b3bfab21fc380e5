import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, it } from 'vitest';
import { TestQemu } from './qemu.ts';

it('the example of docs/qmp.md runs', async () => {
  const [, example = ''] = /```ts\n(.*?)```/s.exec(await readFile('docs/qmp.md', 'utf8')) ?? [];
  expect(example).toContain("from 'qmp-agent/qmp'");
  await using qemu = await TestQemu.start();
  await (await qemu.connect()).close();
  const script = join(qemu.dir, 'example.mts');
  const client = join(process.cwd(), 'qmp/index.ts');
  await writeFile(script, example.replace('qmp-agent/qmp', client));
  const loader = join(process.cwd(), 'node_modules/tsx/dist/esm/index.mjs');
  const { stdout } = await execa(process.execPath, ['--import', loader, script], {
    cwd: qemu.dir,
  });
  expect(stdout).toMatch(/^QEMU \d+\.\d+\nrunning\nSTOP\nRESUME$/);
});
