import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResultPromise } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { qmpAgent, startQmpAgent, type Sandbox } from '../../integration/cli/command.ts';
import { expectNothingLeft, processesOf, vmSandbox } from './host.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await vmSandbox();
});
afterEach(() => expectNothingLeft(box));
afterAll(() => box[Symbol.asyncDispose]());

/** Starts a command and waits until it has printed `ready`. */
async function started(script: string): Promise<{ command: ResultPromise }> {
  const args = ['run', '--log-level', 'error', '--', 'bash', '-c', script];
  const command = startQmpAgent(args, { env: box.env });
  await new Promise<void>((resolve, reject) => {
    let seen = '';
    command.stdout!.on('data', (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.includes('ready')) resolve();
    });
    void command.then((result) => reject(new Error(`ended early: ${String(result.stderr)}`)));
  });
  // Wrapped: a promise of a promise would wait for the command's end.
  return { command };
}

describe('signals to qmp-agent run', () => {
  it('Ctrl-C reaches the command, which may deal with it', async () => {
    const { command } = await started(
      'trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.1; done',
    );
    command.kill('SIGINT');
    const result = await command;
    expect(result.exitCode).toBe(5);
    expect(result.stdout).toContain('caught');
  });

  it('a command that does not deal with it is ended by it', async () => {
    const { command } = await started('echo ready; exec sleep 600');
    command.kill('SIGINT');
    expect((await command).exitCode).toBe(130);
  });

  it('a second Ctrl-C ends the VM', async () => {
    const { command } = await started(
      'trap "echo caught" INT; echo ready; while :; do sleep 0.1; done',
    );
    command.kill('SIGINT');
    await new Promise<void>((resolve) => {
      command.stdout!.on('data', (chunk: Buffer) => {
        if (chunk.toString().includes('caught')) resolve();
      });
    });
    command.kill('SIGINT');
    expect((await command).exitCode).toBe(130);
  });

  it.each([
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s ends a command that ignores it, and the VM', async (signal, exitCode) => {
    const { command } = await started(
      `trap "" ${signal.slice(3)}; echo ready; while :; do sleep 0.1; done`,
    );
    command.kill(signal);
    expect((await command).exitCode).toBe(exitCode);
  });

  it('Ctrl-C while the VM boots leaves nothing', async () => {
    const command = startQmpAgent(['run', '--', 'true'], { env: box.env });
    await expect.poll(() => processesOf(box), { timeout: 30_000 }).not.toEqual([]);
    command.kill('SIGINT');
    const result = await command;
    expect(result.exitCode).toBe(130);
    expect(result.stderr).not.toContain('hint: ');
  });

  it('SIGKILL takes QEMU with it, and the next command the files', async () => {
    const { command } = await started('echo ready; exec sleep 600');
    expect(await processesOf(box)).not.toEqual([]);
    command.kill('SIGKILL');
    await command;
    await expect.poll(() => processesOf(box), { timeout: 10_000 }).toEqual([]);
    expect(await readdir(join(box.dir, 'data/vms'))).toHaveLength(1);
    const gc = await qmpAgent(['gc'], { env: box.env });
    expect(gc.exitCode).toBe(0);
    expect(gc.stdout).toContain('removed vm');
  });
});
