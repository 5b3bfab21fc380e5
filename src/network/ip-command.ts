/** The one place that runs `ip` and `tc` (iproute2). */
import { execa } from 'execa';
import { HostError, NetworkInterfaceError, TimeoutError } from '../errors.ts';

/** A batch of ours takes some ms. */
const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 64 * 2 ** 20;

/** What every call may be given. */
export interface IpCallOptions {
  /** A file that is the network namespace to do it in. Default: our own. */
  readonly namespace?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Default 10 000. */
  readonly timeoutMs?: number | undefined;
}

/** How a program is run in a network namespace, which is a file. Pure. */
export function inNamespace(
  path: string,
  argv: readonly string[],
): [file: string, ...args: string[]] {
  return ['nsenter', `--net=${path}`, '--', ...argv];
}

/**
 * Runs commands in order, up to the first that fails (ip(8), `-batch`). Those before it have been done.
 * @throws NetworkInterfaceError; HostError ERR_HOST_TOOL, ERR_HOST_PERMISSION; TimeoutError; the signal's reason
 */
export async function ipBatch(commands: readonly string[], o: IpCallOptions = {}): Promise<void> {
  await run(['ip', '-batch', '-'], `${commands.join('\n')}\n`, o);
}

/** The same of tc(8). @throws as {@link ipBatch} */
export async function tcBatch(commands: readonly string[], o: IpCallOptions = {}): Promise<void> {
  await run(['tc', '-batch', '-'], `${commands.join('\n')}\n`, o);
}

/** @returns what `tc …` says. @throws as {@link ipBatch} */
export async function tcText(args: readonly string[], o: IpCallOptions = {}): Promise<string> {
  return run(['tc', ...args], '', o);
}

/** @returns what `ip …` says. @throws as {@link ipBatch} */
export async function ipText(args: readonly string[], o: IpCallOptions = {}): Promise<string> {
  return run(['ip', ...args], '', o);
}

/** @returns what `ip -json …` says. @throws as {@link ipBatch} */
export async function ipJson(args: readonly string[], o: IpCallOptions = {}): Promise<unknown> {
  const text = await run(['ip', '-json', ...args], '', o);
  return text.trim() === '' ? [] : (JSON.parse(text) as unknown);
}

/** Interfaces that have an address in this network. @throws as {@link ipBatch} */
export async function addressesIn(cidr: string, o: IpCallOptions = {}): Promise<string[]> {
  const family = cidr.includes(':') ? '-6' : '-4';
  const found = (await ipJson([family, 'address', 'show', 'to', cidr], o)) as { ifname?: string }[];
  return found.flatMap(({ ifname }) => ifname ?? []); // of those without it is told nothing, one by one
}

async function run(
  argv: readonly [program: 'ip' | 'tc', ...args: string[]],
  input: string,
  o: IpCallOptions,
): Promise<string> {
  o.signal?.throwIfAborted();
  const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const [program] = argv;
  const [file, ...rest] = o.namespace === undefined ? argv : inNamespace(o.namespace, argv);
  const result = await execa(file, rest, {
    input,
    reject: false,
    timeout: timeoutMs,
    forceKillAfterDelay: 1000,
    maxBuffer: MAX_OUTPUT_BYTES,
    env: { LC_ALL: 'C' },
    ...(o.signal === undefined ? {} : { cancelSignal: o.signal }),
  });
  o.signal?.throwIfAborted();
  if (result.timedOut) throw new TimeoutError(program, timeoutMs);
  if (!result.failed) return result.stdout;
  if (result.code === 'ENOENT') {
    throw new HostError('ERR_HOST_TOOL', `${program} is not installed`, {
      hint: 'Install it: apt-get install iproute2.',
    });
  }
  const refusal = refused(program, result.stderr);
  if (/Operation not permitted|Permission denied/.test(result.stderr)) {
    throw new HostError('ERR_HOST_PERMISSION', 'this process may not change network interfaces', {
      hint: 'Run as root or with CAP_NET_ADMIN; or take --network isolated, or --network user.',
      cause: refusal,
    });
  }
  throw refusal;
}

function refused(program: string, stderr: string): NetworkInterfaceError {
  const said = stderr.trim().split('\n')[0] || 'it failed and said nothing';
  return new NetworkInterfaceError(`${program}: ${said}`, {
    stderr,
    hint: 'See `ip link` for what is there, and `qmp-agent doctor` for what this host can do; `qmp-agent gc` takes away what is left of VMs.',
  });
}
