/** What somebody types: a QMP command and its arguments. Pure. */
import { ConfigError } from '../errors.ts';

/** One command. */
export interface QmpInput {
  readonly command: string;
  readonly args?: object | undefined;
  /** Whether it is to run out of band. */
  readonly oob?: boolean;
}

/**
 * Reads `COMMAND [JSON]`, or a whole `{"execute": …}` as it goes over the wire.
 *
 * @throws ConfigError where it is neither.
 */
export function parseQmpLine(line: string): QmpInput {
  if (!line.startsWith('{')) {
    const [, command = line, json] = /^(\S+)\s+(.*)$/s.exec(line) ?? [];
    return { command, args: parseQmpArguments(command, json) };
  }
  const message = parseObject('the line', line);
  const { execute, 'exec-oob': outOfBand, arguments: args } = message as Record<string, unknown>;
  const command = execute ?? outOfBand;
  if (typeof command !== 'string') {
    const hint = 'Write COMMAND [JSON], e.g. query-status, or {"execute": "query-status"}.';
    throw new ConfigError('the line has no "execute"', { field: 'execute', value: line, hint });
  }
  if (args !== undefined && !isObject(args)) throw notAnObject('arguments', JSON.stringify(args));
  return { command, args, oob: outOfBand !== undefined };
}

/** Reads a command's arguments. @throws ConfigError where they are no JSON object. */
export function parseQmpArguments(command: string, json: string | undefined): object | undefined {
  return json === undefined ? undefined : parseObject(`arguments of ${command}`, json);
}

function parseObject(field: string, json: string): object {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new ConfigError(`${field}: not JSON: ${json} (${(cause as Error).message})`, {
      field,
      value: json,
      hint: HINT,
    });
  }
  if (!isObject(value)) throw notAnObject(field, json);
  return value;
}

const HINT = `Write a JSON object, in quotes of the shell where there is one: '{"id": "disk0"}'.`;

function notAnObject(field: string, json: string): ConfigError {
  const problem = `${field}: not a JSON object: ${json}`;
  return new ConfigError(problem, { field, value: json, hint: HINT });
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
