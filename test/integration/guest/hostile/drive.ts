/** The host's side of an attack: what is asked of the hostile agent, and what it costs. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { SCALE } from '../../../scale.ts';
import { GuestSession, openChannel, type ChannelTarget } from '../../../../src/guest/index.ts';

/** How an attack ended on the host. */
export interface Outcome {
  /** What the call, or the session, rejected with; undefined where nothing did. */
  readonly error: unknown;
  readonly tookMs: number;
  /** How far the resident set rose meanwhile. */
  readonly grewMib: number;
}

/** A guest may still be booting. */
const CHOICE_TIMEOUT_MS = 60_000 * SCALE;
const CHOICE_REPEAT_MS = 200;
const SAMPLE_MS = 10;
const VM_ID = 'hostile';

/** Tells the hostile agent what the next connection shall meet. */
export async function choose(target: ChannelTarget, name: string): Promise<void> {
  const signal = AbortSignal.timeout(CHOICE_TIMEOUT_MS);
  const socket = await openChannel(target, signal);
  const token = randomBytes(8).toString('hex');
  // Again and again: on a virtio-serial port the agent may still be in the session before.
  const ask = () => socket.write(`\nATTACK ${token} ${name}\n`);
  const repeat = setInterval(ask, CHOICE_REPEAT_MS);
  try {
    ask();
    let text = '';
    while (!text.includes(`CHOSEN ${token}\n`)) {
      const [chunk] = (await once(socket, 'data', { signal })) as [Buffer];
      text = text.slice(-200) + chunk.toString('latin1');
    }
  } finally {
    clearInterval(repeat);
    socket.destroy();
    if (!socket.closed) await once(socket, 'close');
  }
}

/** Meets the attack that was chosen. `timeoutMs` bounds every single call. */
export async function meet(
  target: ChannelTarget,
  name: string,
  timeoutMs: number,
): Promise<Outcome> {
  const before = process.memoryUsage.rss();
  let peak = before;
  const sample = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, SAMPLE_MS);
  const startedAt = performance.now();
  try {
    const error = await provoke(target, name.split(': ')[0]!, timeoutMs).catch((e: unknown) => e);
    const tookMs = performance.now() - startedAt;
    return { error, tookMs, grewMib: (peak - before) / 1024 / 1024 };
  } finally {
    clearInterval(sample);
  }
}

async function provoke(target: ChannelTarget, phase: string, timeoutMs: number): Promise<unknown> {
  const session = await GuestSession.connect(target, {
    vmId: VM_ID,
    timeoutMs,
    keepAliveMs: timeoutMs,
  });
  try {
    switch (phase) {
      case 'call':
        await session.status({ timeoutMs });
        break;
      case 'exec':
        await readAll(session, timeoutMs);
        break;
      case 'unread':
        return await session.exec({ argv: ['cat'] }, { timeoutMs }).then(() => session.closed);
      case 'stdin':
        return await pour(session, timeoutMs);
      default:
        break;
    }
    return undefined;
  } finally {
    await session.close();
  }
}

async function readAll(session: GuestSession, timeoutMs: number): Promise<void> {
  const exec = await session.exec({ argv: ['cat'] }, { timeoutMs });
  for await (const piece of exec.output) void piece;
  await exec.exit;
}

/** Writes to an exec's stdin as long as there is room, until the session ends. */
async function pour(session: GuestSession, timeoutMs: number): Promise<unknown> {
  const { stdin } = await session.exec({ argv: ['cat'], stdin: true }, { timeoutMs });
  const chunk = Buffer.alloc(256 * 1024);
  const write = () => {
    while (stdin?.destroyed === false && stdin.write(chunk));
  };
  stdin?.on('drain', write);
  write();
  return session.closed;
}
