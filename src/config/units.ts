/** Sizes and durations as people write them. Pure. */

const MIB = 1024 * 1024;
const SIZE = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i;
const SIZE_FACTORS: Readonly<Record<string, number>> = {
  K: 1024,
  M: MIB,
  G: 1024 * MIB,
  T: 1024 * 1024 * MIB,
};
const DURATION = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/i;
const DURATION_FACTORS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * MiB from `2048`, `"2048"` (MiB), `"512M"`, `"2G"`, `"2GiB"`, `"1.5g"`: powers of 1024, as QEMU and
 * docker read them. Undefined where it is no such size, or no whole number of MiB.
 */
export function parseMib(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isInteger(value) ? value : undefined;
  const bytes = typeof value === 'string' ? sizeOf(value, MIB) : undefined;
  return bytes !== undefined && Number.isInteger(bytes / MIB) ? bytes / MIB : undefined;
}

/** Bytes from `"1500"` (bytes), `"64K"`, `"1.5MiB"`. Undefined where it is no such size, or no whole number of bytes. */
export function parseBytes(text: string): number | undefined {
  const bytes = sizeOf(text, 1);
  return Number.isInteger(bytes) ? bytes : undefined;
}

/** @param unit of what has none */
function sizeOf(text: string, unit: number): number | undefined {
  const match = SIZE.exec(text.trim());
  if (match === null) return undefined;
  return Number(match[1]) * (SIZE_FACTORS[(match[2] ?? '').toUpperCase()] ?? unit);
}

/**
 * ms from `1500`, `"1500"` (ms), `"90s"`, `"5m"`, `"1.5h"`. Undefined where it is no such duration,
 * or no whole number of ms.
 */
export function parseMs(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isInteger(value) ? value : undefined;
  if (typeof value !== 'string') return undefined;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Number(text);
  const match = DURATION.exec(text);
  if (match === null) return undefined;
  const ms = Number(match[1]) * (DURATION_FACTORS[(match[2] ?? '').toLowerCase()] ?? 0);
  return Number.isInteger(ms) ? ms : undefined;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** `1.5 GiB`: at most one decimal. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1);
  return `${text} ${UNITS[unit] ?? 'B'}`;
}

/** How long ago an ISO 8601 time was, `4.2 s ago`; undefined where it is no time. */
export function formatAge(time: string): string | undefined {
  const ms = Date.now() - Date.parse(time);
  return Number.isFinite(ms) ? `${formatMs(Math.max(0, ms))} ago` : undefined;
}

/** `850 ms`, `4.2 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`. */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const pad = (n: number): string => String(n).padStart(2, '0');
  const seconds = Math.floor(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${pad(seconds % 60)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} m`;
  const hours = Math.floor(minutes / 60);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
