/** A hostile agent on the other end of the channel: every attack that we know, in full. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostileFiles } from './hostile/agent.ts';
import { choose, meet } from './hostile/drive.ts';
import { ATTACKS } from './hostile/expected.ts';
import { LocalAgent } from './local-agent.ts';
import { SCALE } from '../../scale.ts';

/** Bounds each call; the keep-alive needs two of it. */
const CALL_MS = 1_000 * SCALE;
/** Beyond it: our own work, on a busy machine. */
const SLACK_MS = 2_000 * SCALE;
/** What may wait unread on one session, and the garbage collector's slack. */
const MAX_GROWTH_MIB = 96;

let agent: LocalAgent;
beforeAll(async () => {
  agent = await LocalAgent.start(await hostileFiles());
});
afterAll(() => agent[Symbol.asyncDispose]());

describe('a host survives', () => {
  it.each(ATTACKS)('$name', async ({ name, code }) => {
    await choose(agent.target, name);
    const { error, tookMs, grewMib } = await meet(agent.target, name, CALL_MS);
    expect(error).toMatchObject({ code: expect.stringMatching(code), vmId: 'hostile' });
    expect(tookMs).toBeLessThan(3 * CALL_MS + SLACK_MS);
    expect(grewMib).toBeLessThan(MAX_GROWTH_MIB);
  });
});
