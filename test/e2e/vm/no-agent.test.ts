/** Guests that never come up: an error with what the console said last, in time, and nothing left. */
import { afterEach, describe, expect, it } from 'vitest';
import { GuestPanicError, TimeoutError, VmDiedError } from '../../../src/errors.ts';
import type { VmCreateOptions } from '../../../src/vm/api.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { qmpAgent, startQmpAgent } from '../../integration/cli/command.ts';
import { expectNothingLeft, processesOf } from '../cli/host.ts';
import { failureOf, onlyQemuPid, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** Until the kernel has printed something, and well past it. */
const DEADLINE_MS = 8_000 * SCALE;
/** From the deadline, or the fault, to the error. */
const CLEANUP_MS = 3_000 * SCALE;
/** Runs `sleep 600` in the place of the agent (octal, as `buildCmdline` encodes a blank). */
const NO_AGENT = ['qmp_agent.run=sleep\\0040600', 'loglevel=7'];

const state = useTestState();
afterEach(() => expectNothingLeft(state.box));

async function failedBoot(o: VmCreateOptions, withinMs: number) {
  const startedAt = performance.now();
  const error = await failureOf(state.create(o));
  expect(performance.now() - startedAt).toBeLessThan(withinMs);
  return error;
}

describe('a guest without an agent', () => {
  it.each([
    ['that is thrown away', false],
    ['that was to stay', true],
  ])('%s: the deadline, and the console’s last lines', async (_what, persistent) => {
    const o = { kernelArgs: NO_AGENT, persistent, timeoutMs: DEADLINE_MS };
    const error = await failedBoot(o, DEADLINE_MS + CLEANUP_MS);
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({
      code: 'ERR_TIMEOUT',
      operation: expect.stringMatching(/^guest agent of VM [0-9a-f]{12}$/),
      hint: expect.stringMatching(/console's last lines:\n[^]*\[ +\d+\.\d+\]/),
    });
    const { timeoutMs } = error as TimeoutError;
    expect(timeoutMs).toBeGreaterThan(DEADLINE_MS / 2);
    expect(timeoutMs).toBeLessThanOrEqual(DEADLINE_MS);
  });

  it('and whoever cannot wait: his own reason, at once', async () => {
    const controller = new AbortController();
    const reason = new Error('changed my mind');
    const onProgress = (step: string) => {
      if (step === 'boot') controller.abort(reason);
    };
    const o = { kernelArgs: NO_AGENT, signal: controller.signal, onProgress };
    expect(await failedBoot(o, DEADLINE_MS)).toBe(reason);
  });

  it('whose QEMU is killed meanwhile', async () => {
    const onProgress = (step: string) => {
      if (step !== 'boot') return;
      void onlyQemuPid(state).then((pid) => process.kill(pid, 'SIGKILL'));
    };
    const error = await failedBoot({ kernelArgs: NO_AGENT, onProgress }, DEADLINE_MS);
    expect(error).toBeInstanceOf(VmDiedError);
    expect(error).toMatchObject({ code: 'ERR_VM_DIED' });
    expect(error.message).toContain('SIGKILL');
  });
});

describe('a guest without a root disk', () => {
  const NO_DISK = ['qmp_agent.modules=virtio_pci', 'qmp_agent.rootwait=1'];

  it('panics with the last words of its init', async () => {
    const error = await failedBoot({ kernelArgs: NO_DISK }, 60_000 * SCALE);
    expect(error).toBeInstanceOf(GuestPanicError);
    expect(error.message).toContain('no root disk (/dev/vda) within 1 s');
    expect((error as GuestPanicError).panic).toContain('Attempted to kill init');
  });
});

describe('a guest without an init', () => {
  it('panics; so says the error', async () => {
    const error = await failedBoot({ kernelArgs: ['rdinit=/bin/false'] }, 60_000 * SCALE);
    expect(error).toBeInstanceOf(GuestPanicError);
    expect(error.message).toMatch(/Kernel panic - not syncing: .*(root|init)/);
  });
});

describe('qmp-agent run', () => {
  it('ends with 125 and the console where the deadline is over', async () => {
    // No kernel arguments on the command line: too short a deadline for any guest does as well.
    const env = { ...state.box.env, QMP_AGENT_VM_READY_TIMEOUT_MS: '1500' };
    const result = await qmpAgent(['run', '--log-level', 'error', '--', 'true'], { env });
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/guest agent of VM \w+: no result within \d+ ms\n/);
    expect(result.stderr).toMatch(/hint: /);
  });

  it('killed while its guest boots takes QEMU with it, and the next command the files', async () => {
    const command = startQmpAgent(['run', '--', 'true'], { env: state.box.env });
    await expect
      .poll(() => Vm.list(state), { timeout: DEADLINE_MS })
      .toMatchObject([{ state: 'starting', pid: expect.any(Number) }]);
    command.kill('SIGKILL');
    await command;
    await expect.poll(() => processesOf(state.box), { timeout: CLEANUP_MS }).toEqual([]);
    expect(await Vm.list(state)).toEqual([]);
  });
});
