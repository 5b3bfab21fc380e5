/** How HTTP/2 names what went wrong. */

/** RFC 9113, 7, in the order of their codes. */
const NAMES = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
];

/** RFC 9113, 7. */
export const CANCEL = 8;

/** The RFC's name of an error code. */
export function http2ErrorName(code: number | undefined): string {
  return NAMES[code ?? 0] ?? `code ${code}`;
}
