/** A state directory of its own on the host's images, and a look for what is left behind. */
import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';
import { sandbox, type Sandbox } from '../../integration/cli/command.ts';

const SCALE = Number(process.env['QMP_AGENT_TEST_TIMEOUT_SCALE'] ?? 1);
/** The kernel's clean-up of a killed QEMU, and ours of its files, may take a moment. */
const REAP_MS = 10_000 * SCALE;
const POLL_MS = 50;
/** What a state directory holds besides VMs. */
const LASTING = ['images', 'logs', 'state.json', 'vms'];

/** A sandbox that has the `base` image. */
export async function vmSandbox(): Promise<Sandbox> {
  const host = resolvePaths();
  const box = await sandbox();
  await mkdir(join(box.dir, 'data'), { recursive: true });
  await symlink(join(host.dataDir, 'images'), join(box.dir, 'data/images'));
  return { ...box, env: { ...box.env, QMP_AGENT_STATE_CACHE_DIR: host.cacheDir } };
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

/** What is left of VMs: processes, records, sockets, temporary files. Works in hooks as well. */
export async function expectNothingLeft(box: Sandbox): Promise<void> {
  const deadline = performance.now() + REAP_MS;
  let left = await leftovers(box);
  while (left.length > 0 && performance.now() < deadline) {
    await delay(POLL_MS);
    left = await leftovers(box);
  }
  expect(left).toEqual([]);
}

async function leftovers(box: Sandbox): Promise<string[]> {
  const [processes, vms, sockets, data] = await Promise.all([
    processesOf(box),
    namesIn(join(box.dir, 'data/vms')),
    namesIn(join(box.dir, 'run')),
    namesIn(join(box.dir, 'data')),
  ]);
  return [
    ...processes,
    // The lock of the names is one empty file for all VMs there ever were.
    ...vms.filter((name) => name !== '.names.lock').map((name) => `data/vms/${name}`),
    ...sockets.map((name) => `run/${name}`),
    ...data.filter((name) => !LASTING.includes(name)).map((name) => `data/${name}`),
  ];
}

function namesIn(dir: string): Promise<string[]> {
  return readdir(dir).catch(() => []);
}
