import { QmpProtocolError } from '../src/errors.ts';
import { QUOTED_CHARS } from './limits.ts';

/** QEMU's version, as its greeting gives it. */
export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** The distributor's own words, e.g. `Debian 1:7.2+dfsg-7`; may be empty. */
  readonly package: string;
}

/** An event as it comes over the wire, before its name is known to the types. */
export interface RawEvent {
  readonly event: string;
  readonly data?: object;
  /** Host clock of QEMU; both are -1 where the host could not tell the time. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** What QEMU may send. Source: QEMU's docs/interop/qmp-spec. */
export type ServerMessage =
  | { kind: 'greeting'; version: QemuVersion; capabilities: readonly string[] }
  | { kind: 'return'; id: unknown; value: unknown }
  | { kind: 'error'; id: unknown; errorClass: string; desc: string }
  | { kind: 'event'; event: RawEvent };

type Json = Record<string, unknown>;

/**
 * Reads one line from QEMU.
 *
 * @throws QmpProtocolError where it is not a message of the protocol.
 */
export function parseMessage(line: string): ServerMessage {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw badMessage('not JSON', line, cause);
  }
  if (!isObject(json)) throw badMessage('not a JSON object', line);
  const message =
    'return' in json
      ? { kind: 'return' as const, id: json.id, value: json.return }
      : (parseError(json) ?? parseEvent(json) ?? parseGreeting(json));
  if (message === undefined) throw badMessage('neither answer, event nor greeting', line);
  return message;
}

/** The line of a command, with its line end. JSON.stringify never emits a line feed. */
export function encodeCommand(
  command: string,
  args: object | undefined,
  id: string,
  oob: boolean,
): string {
  return JSON.stringify({ [oob ? 'exec-oob' : 'execute']: command, arguments: args, id });
}

function parseError(json: Json): ServerMessage | undefined {
  const { error, id } = json;
  if (!isObject(error)) return undefined;
  const { class: errorClass, desc } = error;
  if (typeof errorClass !== 'string' || typeof desc !== 'string') return undefined;
  return { kind: 'error', id, errorClass, desc };
}

function parseEvent(json: Json): ServerMessage | undefined {
  const { event, data, timestamp } = json;
  if (typeof event !== 'string' || !isObject(timestamp)) return undefined;
  if (data !== undefined && !isObject(data)) return undefined;
  const { seconds, microseconds } = timestamp;
  if (typeof seconds !== 'number' || typeof microseconds !== 'number') return undefined;
  return { kind: 'event', event: json as unknown as RawEvent };
}

function parseGreeting(json: Json): ServerMessage | undefined {
  const { QMP: qmp } = json;
  if (!isObject(qmp) || !Array.isArray(qmp.capabilities) || !isObject(qmp.version)) {
    return undefined;
  }
  const { qemu, package: pkg } = qmp.version;
  if (!isObject(qemu)) return undefined;
  const { major, minor, micro } = qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') {
    return undefined;
  }
  const capabilities = qmp.capabilities.filter((name) => typeof name === 'string');
  const version = { major, minor, micro, package: typeof pkg === 'string' ? pkg : '' };
  return { kind: 'greeting', version, capabilities };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What of a text fits into an error message. */
export function excerpt(text: string): string {
  if (text.length <= QUOTED_CHARS) return text;
  return `${text.slice(0, QUOTED_CHARS)}… (${text.length} chars)`;
}

function badMessage(what: string, line: string, cause?: unknown): QmpProtocolError {
  return new QmpProtocolError(`QMP message is ${what}: ${JSON.stringify(excerpt(line))}`, {
    cause,
    hint: 'Check that the socket is a QMP monitor of QEMU (-qmp or -mon mode=control).',
  });
}
