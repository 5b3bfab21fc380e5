import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  qmpAgent,
  startQmpAgent,
  type CommandOptions,
  type Sandbox,
} from '../../integration/cli/command.ts';
import type { VmInfo } from '../../../src/vm/api.ts';
import { describeExec } from './exec.ts';
import { expectNothingLeft, vmSandbox } from './host.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await vmSandbox();
});
afterAll(async () => {
  await qmpAgent(['rm', '--force', 'box', 'kept'], { env: box.env });
  await expectNothingLeft(box);
  await box[Symbol.asyncDispose]();
});

const cli = (args: string[], o: CommandOptions = {}) =>
  qmpAgent([...args.slice(0, 1), '--log-level', 'error', ...args.slice(1)], { ...o, env: box.env });

async function ok(args: string[], o: CommandOptions = {}): Promise<string> {
  const result = await cli(args, o);
  expect(result.stderr).toBe('');
  expect(result.exitCode).toBe(0);
  return String(result.stdout);
}

const list = async (...args: string[]): Promise<VmInfo[]> =>
  JSON.parse(await ok(['list', '--json', ...args])) as VmInfo[];

describe('a VM that stays', () => {
  let id: string;

  it('is created, and found by id, prefix and name', async () => {
    id = (await ok(['create', '--name', 'box'])).trim();
    expect(id).toMatch(/^[0-9a-f]{12}$/);
    expect(await list()).toMatchObject([{ id, name: 'box', state: 'running', persistent: true }]);
    const table = await ok(['list']);
    expect(table).toMatch(/^ID +NAME +IMAGE +STATE/);
    expect(table).toContain(id);
    for (const name of [id, id.slice(0, 5), 'box']) {
      const [info] = JSON.parse(await ok(['inspect', name])) as VmInfo[];
      expect(info).toMatchObject({ id, argv: expect.arrayContaining(['-nodefaults']) });
    }
  });

  describeExec(() => box);

  it('runs several commands at once', async () => {
    const words = ['a', 'b', 'c'];
    const outputs = await Promise.all(
      words.map((word) => ok(['exec', 'box', 'sh', '-c', `sleep 1; echo ${word}`])),
    );
    expect(outputs).toEqual(words);
  });

  it('can be looked into', async () => {
    const [state] = JSON.parse(await ok(['inspect', 'box'])) as VmInfo[];
    expect(state?.pid).toBeGreaterThan(0);
    expect(await ok(['logs', 'box'])).toMatch(/Linux version|qmp-agent/);
    const last = await ok(['logs', '--tail', '1', 'box']);
    expect(last.split('\n')).toHaveLength(1);
  });

  it('is paused and resumed', async () => {
    expect(await ok(['pause', 'box'])).toBe('box');
    expect(await list()).toMatchObject([{ state: 'paused' }]);
    const refused = await cli(['exec', 'box', 'true']);
    expect(refused.exitCode).toBe(125);
    await ok(['resume', 'box']);
    expect(await ok(['exec', 'box', 'echo', 'again'])).toBe('again');
  });

  it('keeps its disk over stop and start', async () => {
    await ok(['exec', '--user', 'root', 'box', 'sh', '-c', 'echo kept > /root/note && sync']);
    await ok(['stop', 'box']);
    expect(await list()).toEqual([]);
    expect(await list('--all')).toMatchObject([{ state: 'stopped' }]);
    const refused = await cli(['exec', 'box', 'true']);
    expect(refused.exitCode).toBe(125);
    expect(refused.stderr).toContain('hint: ');
    await ok(['start', 'box']);
    expect(await ok(['exec', '--user', 'root', 'box', 'cat', '/root/note'])).toBe('kept');
  });

  it('is removed, by force where it runs; who follows its console is told', async () => {
    const follow = startQmpAgent(['logs', '--follow', 'box'], { env: box.env });
    await new Promise((resolve) => follow.stdout!.once('data', resolve));
    const refused = await cli(['remove', 'box', '--json']);
    expect(refused.exitCode).toBe(1);
    expect(JSON.parse(String(refused.stdout))).toMatchObject([
      { vm: 'box', ok: false, error: { code: 'ERR_STATE' } },
    ]);
    expect(await ok(['rm', '-f', 'box', 'no-such-vm'])).toBe('box');
    expect((await follow).exitCode).toBe(0);
    expect(await list('--all')).toEqual([]);
    const gone = await cli(['exec', 'box', 'true']);
    expect(gone.exitCode).toBe(125);
    expect(gone.stderr).toContain('box');
    await expectNothingLeft(box);
  });

  it('stays after run --keep', async () => {
    const result = await cli([
      'run',
      '--keep',
      '--name',
      'kept',
      '--',
      'sh',
      '-c',
      'echo x > ~/f; exit 3',
    ]);
    expect(result.exitCode).toBe(3);
    expect(result.stderr).toContain('kept');
    expect(await ok(['exec', 'kept', 'sh', '-c', 'cat ~/f'])).toBe('x');
    await ok(['rm', '-f', 'kept']);
  });
});
