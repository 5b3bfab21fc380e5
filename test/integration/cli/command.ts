/** The real command in a process of its own. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa, type ResultPromise } from 'execa';
import { SCALE } from '../../scale.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const sources = [
  '--import',
  join(root, 'node_modules/tsx/dist/esm/index.mjs'),
  join(root, 'src/cli/main.ts'),
];
/**
 * Node's arguments before those of qmp-agent: the sources, so that nobody tests yesterday's build.
 * `scripts/test` has built a moment ago and takes that, which starts in a third of the time.
 */
export const NODE_ARGS: readonly string[] =
  process.env['QMP_AGENT_TEST_BUILT'] === 'yes' ? [join(root, 'dist/src/cli/main.js')] : sources;

/** Options of {@link qmpAgent}. */
export interface CommandOptions {
  readonly env?: Record<string, string>;
  readonly input?: string | Uint8Array;
  readonly stdin?: 'ignore' | 'pipe' | 'inherit';
  readonly stdout?: 'pipe' | { file: string };
  readonly timeoutMs?: number;
}

const options = (o: CommandOptions) =>
  ({
    reject: false,
    extendEnv: true,
    env: { NO_COLOR: '1', ...o.env },
    ...(o.input === undefined ? { stdin: o.stdin ?? 'ignore' } : { input: o.input }),
    stdout: o.stdout ?? 'pipe',
    timeout: (o.timeoutMs ?? 60_000) * SCALE,
    killSignal: 'SIGKILL',
    maxBuffer: 256 * 1024 * 1024,
  }) as const;

/** Runs it to its end; never rejects. */
export async function qmpAgent(args: readonly string[], o: CommandOptions = {}) {
  return execa(process.execPath, [...NODE_ARGS, ...args], options(o));
}

/** Starts it. */
export function startQmpAgent(args: readonly string[], o: CommandOptions = {}): ResultPromise {
  return execa(process.execPath, [...NODE_ARGS, ...args], options(o)) as unknown as ResultPromise;
}

/** A state of its own: directories, and no configuration but what the test writes. */
export interface Sandbox extends AsyncDisposable {
  readonly dir: string;
  readonly env: Record<string, string>;
}

/** The command's own deadlines, where machines are slower than its defaults assume. */
const PATIENCE: Record<string, string> = {
  QMP_AGENT_VM_READY_TIMEOUT_MS: String(120_000 * SCALE),
  QMP_AGENT_VM_STOP_GRACE_MS: String(15_000 * SCALE),
};

/** Makes one. */
export async function sandbox(): Promise<Sandbox> {
  const dir = await mkdtemp(join(tmpdir(), 'qa-cli-'));
  return {
    dir,
    env: {
      HOME: dir,
      XDG_CONFIG_HOME: join(dir, 'config'),
      QMP_AGENT_STATE_DATA_DIR: join(dir, 'data'),
      QMP_AGENT_STATE_RUNTIME_DIR: join(dir, 'run'),
      QMP_AGENT_STATE_CACHE_DIR: join(dir, 'cache'),
      ...(SCALE === 1 ? {} : PATIENCE),
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}
