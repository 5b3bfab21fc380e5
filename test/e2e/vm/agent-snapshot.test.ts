/** The agent from its startup snapshot, and without it where the snapshot is not the guest's Node's. */
import { chmod, mkdir, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { snapshotEntries, type AgentSnapshot } from '../../../firmware/agent-snapshot.ts';
import { cpioArchive } from '../../../firmware/cpio.ts';
import { useTestState } from './state.ts';

const FROM_SNAPSHOT = 'the agent starts from its snapshot';
const FAILED = 'the agent cannot be had from its snapshot';

const state = useTestState();
let cacheDir: string;
/** The cached snapshot. */
let part: string;
let good: AgentSnapshot;

// A cache of our own, so that a snapshot can be spoilt in it; the Node in it is the host's.
beforeAll(async () => {
  cacheDir = join(state.box.dir, 'own-cache');
  await mkdir(cacheDir);
  await symlink(join(state.paths.cacheDir, 'node-kit'), join(cacheDir, 'node-kit'));
});

/** Boots a VM, and says what its console and its agent know of the snapshot. */
async function boot() {
  await using vm = await state.create({ paths: { ...state.paths, cacheDir } });
  const script = 'ls /run/qmp-agent; base64 -w 0 /run/qmp-agent/snapshot.head';
  const { stdout } = await vm.commands.run(['sh', '-c', script], { user: 'root' });
  const lines = stdout.trim().split('\n');
  return { console: await vm.logs(), files: lines.slice(0, -1), head: lines.at(-1) ?? '' };
}

/** Puts another snapshot into the place of the good one. */
async function spoil(snapshot: AgentSnapshot): Promise<void> {
  await chmod(part, 0o644);
  await writeFile(part, cpioArchive(snapshotEntries(snapshot, 'image')));
  await rm(join(cacheDir, 'initramfs'), { recursive: true });
}

describe('the agent', () => {
  it('starts from its snapshot, which is gone then', async () => {
    const { console, files, head } = await boot();
    expect(console).toContain(FROM_SNAPSHOT);
    expect(console).not.toContain(FAILED);
    expect(files).not.toContain('snapshot');
    const [name = ''] = await readdir(join(cacheDir, 'agent-snapshot'));
    part = join(cacheDir, 'agent-snapshot', name);
    expect((await stat(part)).size).toBeGreaterThan(1024 * 1024);
    good = { blob: Buffer.from('no snapshot'), libraryHead: Buffer.from(head, 'base64') };
  });

  it('starts without one that Node refuses', async () => {
    await spoil(good);
    const { console } = await boot();
    expect(console).toContain(FROM_SNAPSHOT);
    expect(console).toContain(FAILED);
  });

  it('starts without one of another Node', async () => {
    await spoil({ ...good, libraryHead: Buffer.alloc(good.libraryHead.length, 1) });
    const { console, files } = await boot();
    expect(console).not.toContain(FROM_SNAPSHOT);
    expect(files).not.toContain('snapshot');
  });
});
