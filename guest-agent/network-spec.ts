/** Checks the body of `POST /network`. Pure. */
import { isIPv4 } from 'node:net';
import { LIMITS, type NetworkSpec, type NetworkUp } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { parseNumber } from './spec.ts';

/** Of one interface: not of a group. */
const UNICAST_MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/;

/** @throws RequestError `EINVAL` */
export function parseNetworkSpec(body: Record<string, unknown>): NetworkSpec {
  const { up, dns, ipv6 = false } = body;
  if (up === false) return { up };
  if (up !== true) throw invalid('up must be true or false');
  if (typeof ipv6 !== 'boolean') throw invalid('ipv6 must be true or false');
  if (!Array.isArray(dns) || dns.length > LIMITS.dnsServers)
    throw invalid(`dns must be a list of at most ${LIMITS.dnsServers}`);
  const spec: NetworkUp = {
    up,
    address: ipv4('address', body['address']),
    prefix: whole('prefix', body['prefix'], 1, 32),
    dns: dns.map((server) => ipv4('dns', server)),
    ipv6,
  };
  for (const name of ['peer', 'gateway'] as const)
    if (body[name] !== undefined) spec[name] = ipv4(name, body[name]);
  for (const name of ['mac', 'gatewayMac'] as const)
    if (body[name] !== undefined) spec[name] = mac(name, body[name]);
  const { minMtuBytes, maxMtuBytes } = LIMITS;
  if (body['mtu'] !== undefined) spec.mtu = whole('mtu', body['mtu'], minMtuBytes, maxMtuBytes);
  if (spec.gatewayMac !== undefined && spec.gateway === undefined)
    throw invalid('gatewayMac is given without gateway');
  return spec;
}

function whole(name: string, value: unknown, min: number, max: number): number {
  const number = parseNumber(name, value, min, max);
  if (Number.isInteger(number)) return number;
  throw invalid(`${name} must be a whole number`);
}

function ipv4(name: string, value: unknown): string {
  if (typeof value === 'string' && isIPv4(value)) return value;
  throw invalid(`${name} must be an IPv4 address`);
}

function mac(name: string, value: unknown): string {
  if (typeof value === 'string' && UNICAST_MAC.test(value)) return value;
  throw invalid(`${name} must be a unicast MAC address, in lower case`);
}

function invalid(message: string): RequestError {
  return new RequestError('EINVAL', message);
}
