/** One request to the agent with a small JSON reply, every byte of which is mistrusted. */
import {
  sensitiveHeaders,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { ByteCollector } from '../../guest-agent/byte-collector.ts';
import { LIMITS } from '../../guest-agent/protocol.ts';
import { GuestProtocolError, GuestRequestError, TimeoutError, type GuestError } from '../errors.ts';
import { CANCEL, http2ErrorName } from './http2-errors.ts';
import type { TrafficBudget } from './traffic-budget.ts';
import { bodyText, traceAgent } from './transcript.ts';

/** What every call takes. */
export interface CallOptions {
  /** Ends the wait; the call rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Deadline of the whole call, ms. Default {@link DEFAULT_CALL_TIMEOUT_MS}. */
  timeoutMs?: number | undefined;
}

/** Default of {@link CallOptions.timeoutMs}. */
export const DEFAULT_CALL_TIMEOUT_MS = 30_000;

/** What a request needs to know of its session. */
export interface RequestContext {
  readonly http2: ClientHttp2Session;
  readonly vmId: string;
  /** What the guest may send; every byte that somebody waited for has to be counted as delivered. */
  readonly budget: TrafficBudget;
  /** Counts a stream as long as it is open. */
  track(stream: ClientHttp2Stream): void;
  /** Resolves when the session is over. */
  readonly closed: Promise<unknown>;
  /** Why the session is over; what a request rejects with where it breaks off. */
  lostError(): GuestError;
  /** Ends the session: the guest broke the protocol. */
  fail(error: GuestError): void;
}

/** Opens a stream. Rejects like everything else where the session is gone. */
export function openStream(
  context: RequestContext,
  method: string,
  path: string,
  endStream: boolean,
  headers: OutgoingHttpHeaders = {},
): ClientHttp2Stream {
  if (context.http2.closed || context.http2.destroyed) throw context.lostError();
  const stream = context.http2.request(
    // Not to be kept in the compression table: headers may hold what is secret, and are never the same.
    { ...headers, ':method': method, ':path': path, [sensitiveHeaders]: Object.keys(headers) },
    { endStream },
  );
  stream.on('error', () => undefined); // 'close' follows; its handler knows why
  context.track(stream);
  return stream;
}

/**
 * Sends a request and reads its reply; undefined for a reply without a body.
 * @param body text is JSON, and stands in transcripts; bytes are the user's
 * @throws GuestRequestError where the agent refused, else GuestError, TimeoutError or the signal's reason
 */
export async function request(
  context: RequestContext,
  method: 'GET' | 'POST',
  path: string,
  body: string | Uint8Array | undefined,
  o: CallOptions = {},
): Promise<unknown> {
  const timeoutMs = o.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
  o.signal?.throwIfAborted();
  const stream = openStream(context, method, path, body === undefined);
  traceAgent(context.vmId, 'out', () => `${method} ${path}${bodyText(body)}`);
  if (body !== undefined) {
    const bytes = Buffer.from(body);
    context.budget.sent(bytes.length);
    stream.end(bytes);
  }
  const { status, bytes } = await withDeadline(
    readReply(context, stream),
    { operation: `${method} ${path}`, vmId: context.vmId, signal: o.signal, timeoutMs },
    () => stream.close(CANCEL),
  );
  const text = () => `${status} to ${method} ${path}${bodyText(printable(bytes.toString('utf8')))}`;
  traceAgent(context.vmId, 'in', text);
  const value = bytes.length === 0 ? undefined : parseJson(context, path, bytes);
  if (status >= 200 && status < 300) return value;
  throw refusal(context, value, `${method} ${path}`);
}

/** Waits for `work`, at most for a time; calls `abandon` where it gives up. */
export async function withDeadline<T>(
  work: Promise<T>,
  o: { operation: string; vmId: string; signal?: AbortSignal | undefined; timeoutMs: number },
  abandon: () => void,
): Promise<T> {
  let onAbort = (): void => undefined;
  let timer: NodeJS.Timeout | undefined;
  const giveUp = new Promise<never>((_, reject) => {
    onAbort = () => reject(o.signal?.reason as Error);
    o.signal?.addEventListener('abort', onAbort);
    if (o.signal?.aborted) onAbort();
    if (o.timeoutMs === Infinity) return;
    timer = setTimeout(() => {
      const hint = 'The guest is busy, stopped or does not answer any more.';
      reject(new TimeoutError(o.operation, o.timeoutMs, { vmId: o.vmId, hint }));
    }, o.timeoutMs);
  });
  try {
    return await Promise.race([work, giveUp]);
  } catch (error) {
    work.catch(() => undefined);
    abandon();
    throw error;
  } finally {
    clearTimeout(timer);
    o.signal?.removeEventListener('abort', onAbort);
  }
}

function readReply(
  context: RequestContext,
  stream: ClientHttp2Stream,
): Promise<{ status: number; bytes: Buffer }> {
  return new Promise((resolve, reject) => {
    const body = new ByteCollector();
    let status = 0;
    let ended = false;
    stream.on('response', (headers: IncomingHttpHeaders & { ':status'?: number }) => {
      status = headers[':status'] ?? 0;
    });
    stream.on('data', (chunk: Buffer) => {
      context.budget.delivered(chunk.length);
      body.push(chunk);
      if (body.length <= LIMITS.jsonBytes) return;
      const error = protocolError(context, `a reply is longer than ${LIMITS.jsonBytes} bytes`);
      context.fail(error);
      reject(error);
    });
    stream.once('end', () => (ended = true));
    stream.once('close', () => {
      if (ended && status !== 0) resolve({ status, bytes: body.bytes() });
      else void brokenStream(context, stream).then(reject);
    });
  });
}

/** Why a stream ended before its reply was whole. */
export async function brokenStream(
  context: RequestContext,
  stream: ClientHttp2Stream,
): Promise<GuestError> {
  if (context.http2.destroyed || context.http2.closed) {
    await context.closed; // Node closes the streams first, and names the reason last
    return context.lostError();
  }
  return protocolError(context, `a reply broke off (${http2ErrorName(stream.rstCode)})`);
}

/** An error that says what the agent did wrong. */
export function protocolError(context: { vmId: string }, what: string): GuestProtocolError {
  return new GuestProtocolError(`guest agent: ${what}`, {
    vmId: context.vmId,
    hint: 'The guest is not to be trusted any more; remove the VM.',
  });
}

/** The agent's own words, bounded and checked. */
export function refusal(context: RequestContext, value: unknown, what: string): GuestError {
  const error = isRecord(value) && isRecord(value['error']) ? value['error'] : value;
  if (
    !isRecord(error) ||
    typeof error['code'] !== 'string' ||
    typeof error['message'] !== 'string'
  ) {
    return protocolError(context, `the refusal of ${what} is not one`);
  }
  const message = printable(error['message']).slice(0, MAX_MESSAGE_CHARS);
  return new GuestRequestError(message, {
    guestCode: printable(error['code']).slice(0, 32),
    vmId: context.vmId,
    hint: 'The guest refused the request; its message says why.',
  });
}

const MAX_MESSAGE_CHARS = 2000;

/** A guest's text ends up on terminals: no control characters. */
function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

/** Whether this is an object whose members can be looked at. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** JSON from the guest; anything else ends the session. */
export function parseJson(context: RequestContext, what: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch {
    const error = protocolError(context, `${what}: the reply is not JSON`);
    context.fail(error);
    throw error;
  }
}
