/** What a command's caller is told when the session with the guest is lost. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GuestDisconnectedError } from '../../../src/errors.ts';
import { restoredError, type GuestSession } from '../../../src/guest/index.ts';
import type { GuestAccess } from '../../../src/vm/api.ts';
import { Commands } from '../../../src/vm/commands.ts';
import { SCALE } from '../../scale.ts';
import { LocalAgent } from './local-agent.ts';

/** A wait that nobody ends. */
const LATE_MS = 10_000 * SCALE;
/** More than any pipe and window between here and a command that reads nothing. */
const UNREAD_BYTES = 8 * 2 ** 20;
let agent: LocalAgent;
beforeAll(async () => {
  agent = await LocalAgent.start();
});
afterAll(() => agent[Symbol.asyncDispose]());

function commandsOn(session: GuestSession): Commands {
  const access: GuestAccess = {
    id: 'local',
    state: 'running',
    fault: new AbortController().signal,
    guest: () => Promise.resolve(session),
    explain: (error) => Promise.resolve(error),
  };
  return new Commands(access);
}

describe('a session that is lost', () => {
  it('ends a wait also where a listener is never through with what it was told', async () => {
    await using session = await agent.connect();
    const told: string[] = [];
    const handle = await commandsOn(session).run(['sh', '-c', 'echo told; sleep 99'], {
      ...{ background: true, timeoutMs: 0 },
      onStdout: (text) => {
        told.push(text);
        return new Promise(() => undefined);
      },
    });
    await expect.poll(() => told).toEqual(['told\n']);
    session.restored();
    await expect(handle.wait({ timeoutMs: LATE_MS })).rejects.toMatchObject({
      code: 'ERR_VM_RESTORED',
    });
  });

  it('ends the wait of who sends more than is read, and of who sends afterwards', async () => {
    await using session = await agent.connect();
    const handle = await commandsOn(session).run(['sleep', '99'], {
      ...{ background: true, timeoutMs: 0, stdin: true },
    });
    const sending = handle.sendStdin('x'.repeat(UNREAD_BYTES), { timeoutMs: LATE_MS });
    sending.catch(() => undefined);
    session.restored();
    for (const sent of [sending, handle.sendStdin('more', { timeoutMs: LATE_MS })])
      await expect(sent).rejects.toMatchObject({ code: 'ERR_VM_RESTORED' });
  });

  it('is told as whoever knows better has it, where there is one', async () => {
    const why = restoredError('local');
    await using session = await agent.connect({ whyLost: () => Promise.resolve(why) });
    const handle = await commandsOn(session).run(['sleep', '99'], {
      ...{ background: true, timeoutMs: 0 },
    });
    session.agentGone();
    await expect(handle.wait({ timeoutMs: LATE_MS })).rejects.toBe(why);
    expect(await session.closed).toBe(why);
  });

  it.each([
    ['knows nothing', () => Promise.resolve(undefined)],
    ['fails', () => Promise.reject(new Error('unreadable'))],
  ])('is told as the wire has it, where that one %s', async (_how, whyLost) => {
    await using session = await agent.connect({ whyLost });
    session.agentGone();
    expect(await session.closed).toBeInstanceOf(GuestDisconnectedError);
  });
});
