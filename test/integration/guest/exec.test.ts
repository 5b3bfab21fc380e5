/** Execs of the real agent, over a unix socket on this host. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ExecSpec } from '../../../guest-agent/protocol.ts';
import { GuestRequestError } from '../../../src/errors.ts';
import type { GuestSession } from '../../../src/guest/index.ts';
import { LocalAgent } from './local-agent.ts';

let agent: LocalAgent;
let session: GuestSession;
beforeAll(async () => {
  agent = await LocalAgent.start();
  session = await agent.connect();
});
afterAll(async () => {
  await session.close();
  await agent[Symbol.asyncDispose]();
});

/** Runs to the end; what it wrote to stdout. */
async function run(spec: ExecSpec, input?: string) {
  const exec = await session.exec(spec, { timeoutMs: 10_000 });
  if (input !== undefined) exec.stdin?.end(input);
  const pieces: Buffer[] = [];
  for await (const piece of exec.output) {
    if ('data' in piece && piece.stream === 'stdout') pieces.push(piece.data);
  }
  return { stdout: Buffer.concat(pieces).toString(), ...(await exec.exit) };
}

/** A zombie whose parent is slow to wait for it is no survivor. */
async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined);
  return (
    stat !== undefined && stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z'
  );
}

describe('an exec', () => {
  it('gets its stdin and ends with its code', async () => {
    const result = await run({ argv: ['sh', '-c', 'cat; exit 3'], stdin: true }, 'through');
    expect(result).toMatchObject({ stdout: 'through', exitCode: 3, timedOut: false });
  });

  it('ends although nobody closes its stdin', async () => {
    expect(await run({ argv: ['true'], stdin: true })).toMatchObject({ exitCode: 0 });
  });

  it('that cannot start is refused at once, although its stdin is open', async () => {
    const refused = session.exec({ argv: ['no-such-program'], stdin: true }, { timeoutMs: 10_000 });
    await expect(refused).rejects.toBeInstanceOf(GuestRequestError);
    await expect(refused).rejects.toMatchObject({ guestCode: 'ENOENT' });
  });

  it('is killed with all that it started when its time is over', async () => {
    const argv = ['sh', '-c', 'setsid sleep 1000 & echo $!; sleep 1000'];
    const result = await run({ argv, timeoutMs: 500 });
    expect(result).toMatchObject({ signal: 'SIGKILL', timedOut: true });
    const pid = Number(result.stdout);
    expect(pid).toBeGreaterThan(1);
    await expect.poll(() => isAlive(pid)).toBe(false);
  });

  it('passes MiB through, byte by byte', async () => {
    const input = 'x'.repeat(4 * 1024 * 1024);
    const { stdout } = await run({ argv: ['cat'], stdin: true }, input);
    expect(stdout === input).toBe(true);
  });
});
