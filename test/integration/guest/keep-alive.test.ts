/** A guest that does not answer: hangs, or its vCPUs stand still. Both look the same from here. */
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { GuestDisconnectedError } from '../../../src/errors.ts';
import { LocalAgent } from './local-agent.ts';

const KEEP_ALIVE_MS = 200;

describe('the keep-alive', () => {
  it('ends a session with an agent that hangs, while somebody waits for it', async () => {
    await using agent = await LocalAgent.start();
    await using session = await agent.connect({ keepAliveMs: KEEP_ALIVE_MS });
    const exec = await session.exec({ argv: ['sleep', '600'] });
    agent.process.kill('SIGSTOP');
    const reason = await session.closed;
    expect(reason).toBeInstanceOf(GuestDisconnectedError);
    expect(reason?.message).toContain(`${KEEP_ALIVE_MS} ms`);
    await expect(exec.exit).rejects.toBe(reason);
    agent.process.kill('SIGCONT');
  });

  it('leaves one alone that stands still, and its command goes on afterwards', async () => {
    await using agent = await LocalAgent.start();
    let isPaused = false;
    await using session = await agent.connect({
      keepAliveMs: KEEP_ALIVE_MS,
      isPaused: () => isPaused,
    });
    const exec = await session.exec({ argv: ['cat'], stdin: true });
    isPaused = true;
    agent.process.kill('SIGSTOP');
    await delay(5 * KEEP_ALIVE_MS);
    agent.process.kill('SIGCONT');
    isPaused = false;
    exec.stdin?.end('still here');
    const pieces: string[] = [];
    for await (const piece of exec.output) if ('data' in piece) pieces.push(String(piece.data));
    expect(pieces.join('')).toBe('still here');
    expect(await exec.exit).toMatchObject({ exitCode: 0 });
  });
});
