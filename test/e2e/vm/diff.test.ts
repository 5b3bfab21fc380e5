/** What has changed between two checkpoints of real machines. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diffCheckpoints } from '../../../src/vm/diff/named.ts';
import type { CheckpointDiff } from '../../../src/vm/diff/types.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent } from '../../integration/cli/command.ts';
import { clockOffMs } from './guest-time.ts';
import { BOOT_MS, failureOf, useTestState } from './state.ts';

const state = useTestState();
const PROVISION = `mkdir -p /srv/dir/below /srv/gone && cd /srv
echo a > kept; echo b > text; echo c > moved; echo d > mode; echo e > dir/below/file; echo f > gone/file
ln -s kept link; head -c 20000000 /dev/urandom > big`;
const CHANGES = `cd /srv; echo new > added; echo B > text; mv moved moved-away; chmod 600 mode
rm -r dir; echo now a file > dir; rm -r gone; ln -sf text link; ln kept hard
printf x | dd of=big bs=1 seek=12345678 conv=notrunc 2>/dev/null; echo > "$(printf 'two\\nlines')"`;
const EXPECTED = [
  'A added',
  'C big content mtime',
  'C dir type mode mtime',
  'D dir/below',
  'D dir/below/file',
  'D gone',
  'D gone/file',
  'A hard',
  'C link mtime target',
  'C mode mode',
  'D moved',
  'A moved-away',
  'C text content mtime',
  'A two\nlines',
];
let vm: Vm;

const asRoot = (on: Vm, command: string) => on.commands.run(command, { user: 'root' });
/** What is under /srv, as `A path` and what about it. */
const inSrv = ({ changes }: CheckpointDiff): string[] =>
  changes
    .filter(({ path }) => path.startsWith('/srv/'))
    .map(({ kind, path, changes: aspects = [] }) =>
      [kind.charAt(0).toUpperCase(), path.slice('/srv/'.length), ...aspects].join(' '),
    );

beforeAll(async () => {
  const options = { paths: state.paths, timeoutMs: BOOT_MS };
  await createTemplate('plain', { ...options, memoryMib: 512, provision: PROVISION });
  vm = await Vm.fromTemplate('plain', { ...options, name: 'work', persistent: true });
});

afterAll(async () => {
  await vm.remove({ force: true });
  await new TemplateStore(state.paths).remove('plain');
});

describe('diff', () => {
  it('shows what a running clone has changed since it was made, and the VM goes on', async () => {
    expect(inSrv(await vm.diff())).toEqual([]);
    await vm.commands.run('while :; do date +%s%N > /tmp/alive; sleep 0.05; done', {
      ...{ background: true, timeoutMs: 0 },
    });
    await asRoot(vm, CHANGES);
    const found = await vm.diff();
    expect(found).toMatchObject({
      before: { kind: 'template', name: 'plain' },
      after: { kind: 'vm', id: vm.id, name: 'work' },
    });
    expect(inSrv(found)).toEqual(EXPECTED);
    const big = found.changes.find(({ path }) => path === '/srv/big');
    expect(big?.after).toMatchObject({ type: 'file', mode: 0o644, uid: 0, sizeBytes: 20_000_000 });
    const alive = async () => (await vm.commands.run('cat /tmp/alive')).stdout;
    const first = await alive();
    await expect.poll(alive).not.toBe(first);
    expect(await clockOffMs(vm)).toBeLessThan(BOOT_MS / 50);
  });

  it('shows what came after a snapshot, of the VM as it runs, and stopped', async () => {
    await asRoot(vm, 'echo early > /srv/early');
    await vm.snapshots.create('then');
    await asRoot(vm, 'rm /srv/added; echo late > /srv/late; echo later >> /srv/text');
    const since = ['D added', 'A late', 'C text content size mtime'];
    expect(inSrv(await vm.diff({ from: '@then' }))).toEqual(since);
    const earlier = await diffCheckpoints('plain', 'work@then', state);
    expect(inSrv(earlier)).toEqual([...EXPECTED, 'A early'].sort(byPath));
    await vm.stop();
    expect(inSrv(await diffCheckpoints('work@then', 'work', state))).toEqual(since);
    await vm.start();
  });

  it('shows what a child of a fork has changed', async () => {
    const [child] = await vm.fork({ timeoutMs: BOOT_MS });
    if (child === undefined) throw new Error('no child');
    await using _child = child;
    await asRoot(child, 'echo child > /srv/child; rm /srv/late');
    const found = await child.diff();
    expect(found.before.kind).toBe('checkpoint');
    expect(inSrv(found)).toEqual(['A child', 'D late']);
    await asRoot(vm, 'echo original > /srv/original');
    const between = await child.diff({ from: 'work' });
    expect(inSrv(between)).toEqual(['A child', 'D late', 'D original']);
  });

  it('prints a line for each, and JSON', async () => {
    const lines = await qmpAgent(['diff', 'plain', 'work'], state.box);
    expect(lines.stdout.split('\n')).toEqual(
      expect.arrayContaining(['C /srv/text', 'D /srv/moved', String.raw`A "/srv/two\nlines"`]),
    );
    const json = await qmpAgent(['diff', 'work', '--json'], state.box);
    expect(inSrv(JSON.parse(json.stdout) as CheckpointDiff)).toContain('A two\nlines');
  });

  it('refuses what is not there, or has nothing to compare', async () => {
    const refused = (...words: [string, string?]) =>
      failureOf(diffCheckpoints(words[0], words[1], state));
    expect(await refused('nobody')).toMatchObject({ code: 'ERR_NOT_FOUND' });
    expect(await refused('work@never')).toMatchObject({ code: 'ERR_NOT_FOUND', kind: 'snapshot' });
    expect(await refused('base')).toMatchObject({ code: 'ERR_CONFIG' });
    expect(await refused('template:plain@x')).toMatchObject({ code: 'ERR_CONFIG' });
    const reason = new Error('no more');
    const signal = AbortSignal.abort(reason);
    expect(await failureOf(vm.diff({ signal }))).toBe(reason);
    expect((await vm.info()).state).toBe('running');
  });
});

function byPath(one: string, other: string): number {
  return one.slice(2) < other.slice(2) ? -1 : 1;
}
