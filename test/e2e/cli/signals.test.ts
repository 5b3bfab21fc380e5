import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResultPromise } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { qmpAgent, startQmpAgent, type Sandbox } from '../../integration/cli/command.ts';
import { SCALE } from '../../scale.ts';
import { expectNothingLeft, processesOf, started, vmSandbox } from './host.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await vmSandbox();
});
afterEach(() => expectNothingLeft(box));
afterAll(() => box[Symbol.asyncDispose]());

/** Starts a command and waits until it has printed `ready`. */
async function running(script: string): Promise<{ command: ResultPromise }> {
  const args = ['run', '--log-level', 'error', '--', 'bash', '-c', script];
  const command = startQmpAgent(args, { env: box.env });
  await started(command);
  // Wrapped: a promise of a promise would wait for the command's end.
  return { command };
}

describe('signals to qmp-agent run', () => {
  it('a second Ctrl-C ends the VM', async () => {
    const { command } = await running(
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

  it('SIGTERM ends a command that ignores it, and the VM', async () => {
    const { command } = await running('trap "" TERM; echo ready; while :; do sleep 0.1; done');
    command.kill('SIGTERM');
    expect((await command).exitCode).toBe(143);
  });

  it('Ctrl-C while the VM boots leaves nothing', async () => {
    const command = startQmpAgent(['run', '--', 'true'], { env: box.env });
    await expect.poll(() => processesOf(box), { timeout: 30_000 * SCALE }).not.toEqual([]);
    command.kill('SIGINT');
    const result = await command;
    expect(result.exitCode).toBe(130);
    expect(result.stderr).not.toContain('hint: ');
  });

  it('SIGKILL takes QEMU with it, and the next command the files', async () => {
    const { command } = await running('echo ready; exec sleep 600');
    expect(await processesOf(box)).not.toEqual([]);
    command.kill('SIGKILL');
    await command;
    await expect.poll(() => processesOf(box), { timeout: 10_000 * SCALE }).toEqual([]);
    expect(await readdir(join(box.dir, 'data/vms'))).toHaveLength(1);
    const gc = await qmpAgent(['gc'], { env: box.env });
    expect(gc.exitCode).toBe(0);
    expect(gc.stdout).toContain('removed vm');
  });
});
