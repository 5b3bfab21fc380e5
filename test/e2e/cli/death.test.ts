/** `qmp-agent run` where its VM dies: the exit code says so, and the reason is told. */
import type { Writable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { startQmpAgent } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { BOOT_MS, onlyQemuPid, useTestState } from '../vm/state.ts';
import { expectNothingLeft } from './host.ts';

/** From a death to the end of the command. */
const AT_ONCE_MS = 3_000 * SCALE;

const state = useTestState();

describe('qmp-agent run', () => {
  /** Runs a command until it has printed `ready`, then whatever is to happen. */
  async function interrupted(script: string, then: (stdin: Writable) => Promise<unknown>) {
    const args = ['run', '--user', 'root', '--log-level', 'error', '--', 'sh', '-c', script];
    const o = { env: state.box.env, timeoutMs: BOOT_MS, stdin: 'pipe' as const };
    const command = startQmpAgent(args, o);
    await new Promise<void>((resolve, reject) => {
      command.stdout!.once('data', () => resolve());
      void command.then((result) => reject(new Error(String(result.stderr))));
    });
    const startedAt = performance.now();
    await then(command.stdin!);
    const result = await command;
    expect(performance.now() - startedAt).toBeLessThan(AT_ONCE_MS + 2_000 * SCALE);
    return result;
  }

  afterAll(() => expectNothingLeft(state.box));

  it('ends with 125 where QEMU is killed, and leaves nothing', async () => {
    const result = await interrupted('echo ready; exec sleep 702', async () => {
      process.kill(await onlyQemuPid(state), 'SIGKILL');
    });
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/qmp-agent: VM \w+ is gone: QEMU was ended by SIGKILL/);
    expect(result.stderr).toMatch(/hint: /);
    await expectNothingLeft(state.box);
  });

  it('ends with 125 and the panic where the kernel panics, and leaves nothing', async () => {
    const script = 'echo ready; read -r line; echo c > /proc/sysrq-trigger';
    const result = await interrupted(script, (stdin) => Promise.resolve(stdin.end('go\n')));
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/kernel panicked: Kernel panic - not syncing: sysrq/);
    await expectNothingLeft(state.box);
  });
});
