/** Bounds of one VM on the network: from what people write to what the rules hold. Pure. */
import { DEFAULT_LIMITS, MAX_LIMIT, type NetworkLimits } from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';

/** A bound; `none`: there is none. */
export type Bound = number | 'none';

/** Bounds of one VM. Each can be changed while it runs. */
export interface LimitOptions {
  /** From the VM, bit/s, 8 000 at least. What is over it is dropped. Default `none`. */
  readonly uploadBitsPerSecond?: Bound | undefined;
  /** To the VM, bit/s, 8 000 at least. What is over it is dropped. Default `none`. */
  readonly downloadBitsPerSecond?: Bound | undefined;
  /** From the VM; twice as many at once. Those over it are denied. Default 200. */
  readonly newConnectionsPerSecond?: Bound | undefined;
  /**
   * From the VM, at a time; those by TCP count until the kernel forgets them, up to 120 s after their end. Those
   * over it are denied. Default 1 000.
   */
  readonly connections?: Bound | undefined;
}

/** All bounds of a VM, each of them said. */
export type Limits = Readonly<Record<keyof LimitOptions, Bound>>;

/** All of {@link LimitOptions}: the type makes sure that none is missing. */
const RANGES: Readonly<Record<keyof LimitOptions, { min: number; max: number; hint: string }>> = {
  uploadBitsPerSecond: bandwidth('--bandwidth-up 10mbit'),
  downloadBitsPerSecond: bandwidth('--bandwidth-down 50mbit'),
  newConnectionsPerSecond: { min: 1, max: 1_000_000, hint: '--new-connections 50/s' },
  connections: { min: 1, max: 1_000_000, hint: '--max-connections 500' },
};

function bandwidth(hint: string): { min: number; max: number; hint: string } {
  return { min: 8_000, max: MAX_LIMIT * 8, hint };
}

/**
 * What the rules hold, defaults filled in.
 * @throws ConfigError field `network.limits.…`
 */
export function makeLimits(o: LimitOptions = {}): NetworkLimits {
  const names = Object.keys(RANGES) as (keyof LimitOptions)[];
  for (const name of Object.keys(o)) {
    if (!Object.hasOwn(RANGES, name)) fail(name, o, `Give one of ${names.join(', ')}.`);
  }
  for (const name of names) check(name, o[name]);
  const newConnectionsPerSecond = boundOf(
    o.newConnectionsPerSecond,
    DEFAULT_LIMITS.newConnectionsPerSecond,
  );
  return {
    ...DEFAULT_LIMITS,
    newConnectionsPerSecond,
    newConnectionsBurst: newConnectionsPerSecond && newConnectionsPerSecond * 2,
    connections: boundOf(o.connections, DEFAULT_LIMITS.connections),
    uploadBytesPerSecond: bytes(o.uploadBitsPerSecond),
    downloadBytesPerSecond: bytes(o.downloadBitsPerSecond),
  };
}

/** The bounds in force where this is asked for: every one of them is said. */
export function effectiveLimits(o: LimitOptions = {}): Limits {
  const { newConnectionsPerSecond, connections } = makeLimits(o);
  return {
    uploadBitsPerSecond: o.uploadBitsPerSecond ?? 'none',
    downloadBitsPerSecond: o.downloadBitsPerSecond ?? 'none',
    newConnectionsPerSecond: newConnectionsPerSecond ?? 'none',
    connections: connections ?? 'none',
  };
}

function check(name: keyof LimitOptions, value: unknown): void {
  const { min, max, hint } = RANGES[name];
  if (value === undefined || value === 'none') return;
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return;
  fail(name, value, `Give a whole number from ${min} to ${max}, or none (e.g. ${hint}).`);
}

const boundOf = (bound: Bound | undefined, otherwise: number): number | undefined =>
  bound === 'none' ? undefined : (bound ?? otherwise);

const bytes = (bits: Bound | undefined): number | undefined =>
  typeof bits === 'number' ? Math.floor(bits / 8) : undefined;

const RATE = /^(\d+(?:\.\d+)?)\s*([kmgt]?)bit(?:\/s)?$/i;
const FACTORS: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };

/**
 * Bits per second from `10mbit`, `1.5gbit`, `800kbit/s`: as tc(8) writes them, powers of 1000. `none`: no bound.
 * Undefined where it is no such rate. (`mbps` is none: to tc it is bytes, to most people bits.)
 */
export function parseBandwidth(text: string): Bound | undefined {
  if (text.trim() === 'none') return 'none';
  const [, number = '', unit = ''] = RATE.exec(text.trim()) ?? [];
  const bits = Math.round(Number(number) * (FACTORS[unit.toLowerCase()] ?? 1));
  return number !== '' && Number.isSafeInteger(bits) ? bits : undefined;
}

/** A number of things a second from `50/s`, `50/second` or `50`; `none`: no bound. Undefined where it is no such. */
export function parsePerSecond(text: string): Bound | undefined {
  if (text.trim() === 'none') return 'none';
  const [, number] = /^(\d{1,9})(?:\/s(?:ec(?:ond)?)?)?$/.exec(text.trim()) ?? [];
  return number === undefined ? undefined : Number(number);
}

/** `10 mbit/s`, as {@link parseBandwidth} reads it. */
export function formatBandwidth(bits: Bound): string {
  if (bits === 'none') return 'none';
  const unit = (['g', 'm', 'k'] as const).find((letter) => bits >= (FACTORS[letter] ?? 1)) ?? '';
  return `${bits / (FACTORS[unit] ?? 1)} ${unit}bit/s`;
}

function fail(name: string, value: unknown, hint: string): never {
  const field = `network.limits.${name}`;
  throw new ConfigError(`${field} is ${JSON.stringify(value)}`, { field, value, hint });
}
