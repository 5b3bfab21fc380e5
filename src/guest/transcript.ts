/** What host and agent say to each other, for `--trace agent`. */
import type { ExecSpec } from '../../guest-agent/protocol.ts';
import { events } from '../events.ts';

/** Longest line; a list of many execs is cut. */
const LINE_CHARS = 16 * 1024;
const MASK = '***';

/**
 * Notes a request, a reply or a frame. Bytes that users send or get (stdin, output) are only counted:
 * they may hold secrets, and have no bounds.
 *
 * @param line made only where somebody asked for transcripts
 */
export function traceAgent(vmId: string, direction: 'in' | 'out', line: () => string): void {
  if (!events.traces('agent')) return;
  events.emit('trace.agent', { vmId, direction, line: line().slice(0, LINE_CHARS) });
}

/** A body as a transcript shows it: JSON as text, raw bytes by their number. */
export function bodyText(body: string | Uint8Array | undefined): string {
  if (body === undefined || body.length === 0) return '';
  return typeof body === 'string' ? ` ${body}` : ` (${body.length} bytes)`;
}

/** A spec as text, without the values of its environment. */
export function specText(spec: ExecSpec): string {
  if (spec.env === undefined) return JSON.stringify(spec);
  const env = Object.fromEntries(Object.keys(spec.env).map((name) => [name, MASK]));
  return JSON.stringify({ ...spec, env });
}
