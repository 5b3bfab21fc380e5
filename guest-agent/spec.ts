/** Checks what the host asks for, before anything is done with it. */
import { LIMITS, type ExecSpec, type SignalRequest } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { constants } from 'node:os';

const MAX_TIMEOUT_MS = 2 ** 31 - 1; // setTimeout's own limit: 24.8 days

/** @throws RequestError `EINVAL` */
export function parseExecSpec(text: string): ExecSpec {
  const value = parseObject(text);
  const spec: ExecSpec = {};
  if ((value['argv'] === undefined) === (value['shell'] === undefined)) {
    throw invalid('exactly one of argv and shell must be given');
  }
  if (value['argv'] !== undefined) {
    const argv = value['argv'];
    if (!Array.isArray(argv) || argv.length === 0 || !argv.every(isText) || argv[0] === '') {
      throw invalid('argv must be a list of strings without NUL, the first not empty');
    }
    spec.argv = argv;
  }
  for (const name of ['shell', 'cwd', 'user', 'tag'] as const) {
    if (value[name] === undefined) continue;
    if (!isText(value[name])) throw invalid(`${name} must be a string without NUL`);
    spec[name] = value[name];
  }
  if (value['env'] !== undefined) spec.env = parseEnv(value['env']);
  if (value['stdin'] !== undefined) spec.stdin = value['stdin'] === true;
  if (value['holdStart'] !== undefined) spec.holdStart = value['holdStart'] === true;
  if (value['timeoutMs'] !== undefined) {
    spec.timeoutMs = parseNumber('timeoutMs', value['timeoutMs'], 1, MAX_TIMEOUT_MS);
  }
  if (value['replayBytes'] !== undefined) {
    spec.replayBytes = parseNumber('replayBytes', value['replayBytes'], 0, LIMITS.replayBytes);
  }
  const onDisconnect = value['onDisconnect'];
  if (onDisconnect === 'kill' || onDisconnect === 'keep') spec.onDisconnect = onDisconnect;
  else if (onDisconnect !== undefined) throw invalid('onDisconnect must be "kill" or "keep"');
  return spec;
}

/** @throws RequestError `EINVAL` */
export function parseSignalRequest(text: string): { signal: NodeJS.Signals; tree: boolean } {
  const { signal, tree } = parseObject(text) as Partial<SignalRequest>;
  if (typeof signal !== 'string' || !Object.hasOwn(constants.signals, signal)) {
    throw invalid(`no signal ${JSON.stringify(signal)}`);
  }
  return { signal: signal as NodeJS.Signals, tree: tree === true };
}

/** @throws RequestError `EINVAL` */
export function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid('body is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('body must be a JSON object');
  }
  return value as Record<string, unknown>;
}

/** @throws RequestError `EINVAL` */
export function parseNumber(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !(value >= min && value <= max)) {
    throw invalid(`${name} must be a number from ${min} to ${max}`);
  }
  return value;
}

function parseEnv(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('env must be an object');
  }
  const env: Record<string, string> = {};
  for (const [name, text] of Object.entries(value)) {
    if (name === '' || name.includes('=') || !isText(name) || !isText(text)) {
      // The value may be secret, so it is not repeated.
      throw invalid(
        `env: ${JSON.stringify(name)} is not a name, or its value not a string without NUL`,
      );
    }
    env[name] = text;
  }
  return env;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0');
}

function invalid(message: string): RequestError {
  return new RequestError('EINVAL', message);
}
