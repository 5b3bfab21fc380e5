/** Checks the body of `POST /renew`. Pure. */
import { parseNetworkSpec } from './network-spec.ts';
import { LIMITS, type RenewSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { parseNumber, parseObject } from './spec.ts';
import { HOSTNAME } from './system.ts';

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
const MACHINE_ID = /^[0-9a-f]{32}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @throws RequestError `EINVAL` */
export function parseRenewSpec(text: string): RenewSpec {
  const body = parseObject(text);
  const entropy = matching('entropy', body['entropy'], BASE64);
  const { minEntropyBytes, entropyBytes } = LIMITS;
  parseNumber(
    'entropy length',
    Buffer.from(entropy, 'base64').length,
    minEntropyBytes,
    entropyBytes,
  );
  const network = body['network'] === undefined ? undefined : objectOf('network', body['network']);
  return {
    entropy,
    unixMs: parseNumber('unixMs', body['unixMs'], 0, LIMITS.unixMs),
    hostname: matching('hostname', body['hostname'], HOSTNAME),
    machineId: matching('machineId', body['machineId'], MACHINE_ID),
    bootId: matching('bootId', body['bootId'], UUID),
    durable: parseFlag('durable', body['durable']),
    ...(network === undefined ? {} : { network: parseNetworkSpec(network) }),
  };
}

function objectOf(name: string, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  throw new RequestError('EINVAL', `${name} is not what it should be`);
}

function parseFlag(name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw new RequestError('EINVAL', `${name} is not what it should be`);
}

function matching(name: string, value: unknown, pattern: RegExp): string {
  if (typeof value === 'string' && pattern.test(value)) return value;
  throw new RequestError('EINVAL', `${name} is not what it should be`);
}
