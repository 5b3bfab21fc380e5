import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { agentSnapshotPart, nodeVersion } from '../../../src/image/agent-snapshot.ts';
import type { ImageManifest } from '../../../src/image/types.ts';

describe('nodeVersion', () => {
  const packages = ['node-acorn 8.8.1', 'nodejs 20.19.2+dfsg-1', 'nodejs-doc 1'];

  it('is that of the package whose Node the agent runs on', () => {
    expect(nodeVersion({ node: 'image', packages })).toBe('20.19.2+dfsg-1');
    expect(nodeVersion({ node: 'image', packages: ['nodejs-doc 1'] })).toBeUndefined();
    expect(nodeVersion({ node: 'bundled', packages })).toBeUndefined();
  });
});

describe('the snapshot of an agent', () => {
  let cacheDir: string;
  beforeEach(async () => {
    cacheDir = await mkdtemp(join(tmpdir(), 'qa-agent-snapshot-'));
    const kitDir = join(cacheDir, 'node-kit/20-1');
    await mkdir(kitDir, { recursive: true });
    await writeFile(join(kitDir, 'kit.json'), JSON.stringify({ schema: 1, version: '20' }));
  });
  afterEach(() => rm(cacheDir, { recursive: true }));
  const agent = { hash: 'h', files: [{ name: 'agent.cjs', mode: 0o644, data: Buffer.from('') }] };
  const manifest = { node: 'bundled', packages: [] } as unknown as ImageManifest;
  const made = (signal?: AbortSignal) => agentSnapshotPart(manifest, cacheDir, agent, signal);
  const left = () => readdir(join(cacheDir, 'agent-snapshot')).catch(() => []);

  it('that cannot be made is done without, and not tried again before long', async () => {
    expect(await made()).toBeUndefined(); // the kit has no files
    expect(await left()).toEqual([expect.stringMatching(/\.cpio\.failed$/)]);
    expect(await made()).toBeUndefined();
  });

  it('is not made for who has given up, and left to the next', async () => {
    await execa('mkfifo', [join(cacheDir, 'node-kit/20-1/node.tar')]); // its reader waits for ever
    const reason = new Error('given up');
    const stop = new AbortController();
    const waiting = [made(stop.signal), made(stop.signal)]; // one makes it, one waits for that
    const ends = Promise.allSettled(waiting);
    await vi.waitFor(async () => expect(await left()).not.toEqual([]));
    stop.abort(reason);
    expect(await ends).toEqual([
      { status: 'rejected', reason },
      { status: 'rejected', reason },
    ]);
    expect(await left()).toEqual([]);
  });
});
