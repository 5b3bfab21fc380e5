/** What becomes of the network service when it ends: which ends count as failures. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { NEEDED, SUPERVISOR } from '../../../src/network/service/start.ts';
import { SCALE } from '../../scale.ts';

const TIMEOUT_MS = 30_000 * SCALE;
/** A service that ends at once: notes it, with $2 each time but the seventh, when it is not needed any more. */
const SERVICE = 'echo >>"$1/runs"; [ $(wc -l <"$1/runs") -lt 7 ] || exit 0; exit $2';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'supervisor-'));
  await writeFile(join(dir, 'vm.json'), '{}');
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** @returns how often it was started */
async function supervise(code: number): Promise<number> {
  const service = ['/bin/sh', '-c', SERVICE, 'service', dir, String(code)];
  await promisify(execFile)('/bin/sh', ['-c', SUPERVISOR, 'supervisor', dir, 'no', ...service]);
  return (await readFile(join(dir, 'runs'), 'utf8')).length;
}

it('where nothing is to be left, nothing is, the directory neither; it begins where there is none', async () => {
  await rm(dir, { recursive: true });
  const service = ['/bin/sh', '-c', 'ls "$1" >"$1.seen"', 'service', dir];
  await promisify(execFile)('/bin/sh', ['-c', SUPERVISOR, 'supervisor', dir, 'yes', ...service]);
  expect(await readFile(`${dir}.seen`, 'utf8')).toBe('service.log\nsupervisor.lock\n');
  await expect(stat(dir)).rejects.toMatchObject({ code: 'ENOENT' });
  await rm(`${dir}.seen`);
});

it(
  'starts one anew that ends in order and is needed, however often',
  async () => expect(await supervise(NEEDED)).toBe(7),
  TIMEOUT_MS,
);

it(
  'gives up one that fails five times',
  async () => expect(await supervise(1)).toBe(5),
  TIMEOUT_MS,
);
