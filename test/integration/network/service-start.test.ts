/** The network service where it cannot start: who waits for it is told in time, and why. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { awaitNames } from '../../../src/network/index.ts';
import { NamesWait } from '../../../src/vm/network-of.ts';
import type { VmConfig } from '../../../src/vm/record.ts';
import { vmPaths } from '../../../src/vm/vm-paths.ts';
import { SCALE } from '../../scale.ts';

const VM = 'aaaaaaaaaa01';
let runtimeDir: string;
let dir: string;
beforeEach(async () => {
  runtimeDir = await mkdtemp(join(tmpdir(), 'service-start-'));
  dir = join(runtimeDir, 'network');
  await mkdir(dir);
});
afterEach(() => rm(runtimeDir, { recursive: true }));

/** Holds what a shell needs that is to start the service; its end gives it back. */
async function holdSupervisor(): Promise<AsyncDisposable> {
  const holder = spawn('flock', [join(dir, 'supervisor.lock'), '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  return {
    async [Symbol.asyncDispose]() {
      const gone = once(holder, 'exit');
      holder.stdin.end();
      await gone;
    },
  };
}

it('why it cannot is told with the timeout', async () => {
  await mkdir(join(dir, 'service.sock')); // where its socket is to be
  await expect(
    awaitNames({ runtimeDir, vmId: VM }, { timeoutMs: 6_000 * SCALE }),
  ).rejects.toMatchObject({
    ...{ code: 'ERR_TIMEOUT', vmId: VM, operation: 'the network service' },
    hint: expect.stringMatching(/it cannot start: .*service\.sock/),
  });
});

it('a start waits for it no longer than it has time, nor after it is given up', async () => {
  await using _held = await holdSupervisor();
  const files = vmPaths({ dataDir: '/nowhere', cacheDir: '/nowhere', runtimeDir }, VM);
  const config = { network: 'nat-filtered' } as Partial<VmConfig> as VmConfig;
  const place = {
    at: { tap: 'none', guest: { up: false as const } },
    whole: Promise.resolve(),
  };
  const began = performance.now();
  using short = new NamesWait({ id: VM, files, config }, place, { timeoutMs: 700 });
  await expect(short.answered).rejects.toMatchObject({ code: 'ERR_TIMEOUT', vmId: VM });
  const signal = AbortSignal.timeout(300);
  using aborted = new NamesWait({ id: VM, files, config }, place, { signal });
  expect(await aborted.answered.catch((error: unknown) => error)).toBe(signal.reason);
  expect(performance.now() - began).toBeLessThan(5_000 * SCALE);
});
