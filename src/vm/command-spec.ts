/** From what a caller of `vm.commands` gives to what the agent is asked for. Pure. */
import { Readable } from 'node:stream';
import type { ExecSpec } from '../../guest-agent/protocol.ts';
import { ConfigError } from '../errors.ts';
import { DEFAULT_MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES } from './command-output.ts';
import type { CommandEncoding, CommandLine, CommandOptions } from './command-types.ts';

/** Default of {@link CommandOptions.timeoutMs}; E2B's. */
export const DEFAULT_COMMAND_TIMEOUT_MS = 60_000;
/** setTimeout's own limit, 24.8 days; the agent has the same. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** Of a wrong value, in a message. */
const SHOWN_CHARS = 200;

/** @throws ConfigError a field of the options, its value, and what would be right */
export function commandSpec<E extends CommandEncoding>(
  command: CommandLine,
  o: CommandOptions<E>,
): ExecSpec {
  const { timeoutMs = DEFAULT_COMMAND_TIMEOUT_MS } = o;
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0 && timeoutMs <= MAX_TIMEOUT_MS)) {
    const hint = `Give ms from 0 (no timeout) to ${MAX_TIMEOUT_MS}.`;
    throw wrong('timeoutMs', timeoutMs, 'is no time', hint);
  }
  return {
    ...programOf(command),
    ...(o.cwd === undefined ? {} : { cwd: text('cwd', o.cwd) }),
    ...(o.user === undefined ? {} : { user: text('user', o.user) }),
    ...(o.tag === undefined ? {} : { tag: text('tag', o.tag) }),
    ...(o.envs === undefined ? {} : { env: environment(o.envs) }),
    ...(timeoutMs === 0 ? {} : { timeoutMs }),
    stdin: wantsStdin(o.stdin),
    // A handle is wanted at once, and stdin is sent once the command runs; else its end is what counts.
    ...(o.background === true || wantsStdin(o.stdin) ? {} : { holdStart: true }),
    // Who waits in the foreground and dies leaves nothing behind in the guest.
    onDisconnect: o.background === true ? 'keep' : 'kill',
  };
}

/** @throws ConfigError */
export function outputLimit(maxOutputBytes: number = DEFAULT_MAX_OUTPUT_BYTES): number {
  if (Number.isInteger(maxOutputBytes) && maxOutputBytes >= 0 && maxOutputBytes <= MAX_OUTPUT_BYTES)
    return maxOutputBytes;
  const hint = `Give whole bytes from 0 to ${MAX_OUTPUT_BYTES}.`;
  throw wrong('maxOutputBytes', maxOutputBytes, 'is no size', hint);
}

/** A pid in the guest. @throws ConfigError */
export function checkPid(pid: number): number {
  if (Number.isInteger(pid) && pid > 0) return pid;
  throw wrong('pid', pid, 'is no process id', 'Take one from `vm.commands.list()`.');
}

function programOf(command: CommandLine): Pick<ExecSpec, 'argv' | 'shell'> {
  const hint = 'Give a line for the shell, or program and arguments as a list of strings.';
  if (typeof command === 'string') {
    if (command.trim() === '') throw wrong('command', command, 'is empty', hint);
    return { shell: text('command', command) };
  }
  if (!Array.isArray(command) || command.length === 0 || command[0] === '')
    throw wrong('command', command, 'names no program', hint);
  return { argv: command.map((word: unknown) => text('command', word)) };
}

function wantsStdin(stdin: CommandOptions['stdin']): boolean {
  if (stdin === undefined || typeof stdin === 'boolean') return stdin === true;
  if (typeof stdin === 'string' || stdin instanceof Uint8Array || stdin instanceof Readable)
    return true;
  const hint = 'Give true, text, bytes or a Readable.';
  throw wrong('stdin', typeof stdin, 'cannot be sent', hint);
}

function environment(envs: Readonly<Record<string, string>>): Record<string, string> {
  if (typeof envs !== 'object' || envs === null || Array.isArray(envs))
    throw wrong('envs', typeof envs, 'is no set of variables', 'Give an object: name to value.');
  for (const [name, value] of Object.entries(envs)) {
    if (name !== '' && !/[=\0]/.test(name) && typeof value === 'string' && !value.includes('\0'))
      continue;
    // The value may be secret, so that only the name is shown.
    const hint = 'Names are not empty and have no `=`; values are strings without NUL.';
    throw wrong('envs', name, 'is no variable', hint);
  }
  return { ...envs };
}

function text(field: string, value: unknown): string {
  if (typeof value === 'string' && !value.includes('\0')) return value;
  throw wrong(field, value, 'is no text', 'Give a string without NUL.');
}

function wrong(field: string, value: unknown, why: string, hint: string): ConfigError {
  const shown = JSON.stringify(value)?.slice(0, SHOWN_CHARS) ?? typeof value;
  return new ConfigError(`${field}: ${shown} ${why}`, { field, value, hint });
}
