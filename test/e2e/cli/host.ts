/** A state directory of its own on the host's images, and a look for what is left behind. */
import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResultPromise } from 'execa';
import { expect, vi } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';
import { sandbox, type Sandbox } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';

/** The kernel's clean-up of a killed QEMU, and ours of its files, may take a moment. */
const REAP_MS = 10_000 * SCALE;
/** What a state directory holds besides VMs. */
const LASTING = ['checkpoints', 'images', 'logs', 'state.json', 'templates', 'vms'];

/** A sandbox that has the `base` image. */
export async function vmSandbox(): Promise<Sandbox> {
  const host = resolvePaths();
  const box = await sandbox();
  await mkdir(join(box.dir, 'data'), { recursive: true });
  await symlink(join(host.dataDir, 'images'), join(box.dir, 'data/images'));
  return { ...box, env: { ...box.env, QMP_AGENT_STATE_CACHE_DIR: host.cacheDir } };
}

/** Waits until a command of `startQmpAgent` has printed `ready`; rejects where it ends before. */
export function started(command: ResultPromise): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = '';
    const onData = (chunk: Buffer): void => {
      seen += chunk.toString();
      if (!seen.includes('ready')) return;
      command.stdout!.off('data', onData);
      resolve();
    };
    command.stdout!.on('data', onData);
    void command.then((result) => reject(new Error(`ended early: ${String(result.stderr)}`)));
  });
}

/** Processes whose command line names the sandbox, as `pid: command line`. */
export async function processesOf(box: Sandbox): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map(async (pid) => {
      const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return `${pid}: ${text.replaceAll('\0', ' ')}`;
    }),
  );
  return lines.filter((line) => line.includes(box.dir));
}

/**
 * What is left of VMs: processes, records, sockets, temporary files. Reaping may take a moment. In
 * hooks too, where `expect.poll` is not allowed.
 */
export async function expectNothingLeft(box: Sandbox): Promise<void> {
  // A file with a dot is the lock of the directory itself, and stays.
  const namesIn = async (dir: string): Promise<string[]> =>
    (await readdir(join(box.dir, dir)).catch(() => [])).filter((name) => !name.startsWith('.'));
  await vi.waitFor(
    async () => {
      expect({
        processes: await processesOf(box),
        records: (
          await Promise.all(
            ['vms', 'templates', 'checkpoints'].map((dir) => namesIn(`data/${dir}`)),
          )
        ).flat(),
        sockets: await namesIn('run'),
        others: (await namesIn('data')).filter((name) => !LASTING.includes(name)),
      }).toEqual({ processes: [], records: [], sockets: [], others: [] });
    },
    { timeout: REAP_MS, interval: 100 },
  );
}
