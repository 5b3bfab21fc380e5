/** Checks the body of `POST /network`. Pure. */
import { isIPv4 } from 'node:net';
import { isUnicastV6 } from './ip-address.ts';
import { LIMITS, type NetworkSpec, type NetworkUp, type NetworkV6 } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { parseNumber } from './spec.ts';

/** Of one interface: not of a group. */
const UNICAST_MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/;

/** @throws RequestError `EINVAL` */
export function parseNetworkSpec(body: Record<string, unknown>): NetworkSpec {
  const { up, dns, v6 } = body;
  if (up === false) return { up };
  if (up !== true) throw invalid('up must be true or false');
  if (!Array.isArray(dns) || dns.length > LIMITS.dnsServers)
    throw invalid(`dns must be a list of at most ${LIMITS.dnsServers}`);
  const spec: NetworkUp = {
    up,
    address: ipv4('address', body['address']),
    prefix: whole('prefix', body['prefix'], 1, 32),
    dns: dns.map((server) => ipv4('dns', server)),
  };
  for (const name of ['peer', 'gateway'] as const)
    if (body[name] !== undefined) spec[name] = ipv4(name, body[name]);
  for (const name of ['mac', 'gatewayMac'] as const)
    if (body[name] !== undefined) spec[name] = mac(name, body[name]);
  if (v6 !== undefined) spec.v6 = parseV6(v6);
  const minMtuBytes = v6 === undefined ? LIMITS.minMtuBytes : LIMITS.minV6MtuBytes;
  if (body['mtu'] !== undefined)
    spec.mtu = whole('mtu', body['mtu'], minMtuBytes, LIMITS.maxMtuBytes);
  if (spec.gatewayMac !== undefined && spec.gateway === undefined)
    throw invalid('gatewayMac is given without gateway');
  return spec;
}

function parseV6(value: unknown): NetworkV6 {
  if (typeof value !== 'object' || value === null) throw invalid('v6 must be an object');
  const body = value as Record<string, unknown>;
  return {
    address: ipv6('v6.address', body['address']),
    prefix: whole('v6.prefix', body['prefix'], 1, 128),
    gateway: ipv6('v6.gateway', body['gateway']),
    gatewayMac: mac('v6.gatewayMac', body['gatewayMac']),
  };
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

function ipv6(name: string, value: unknown): string {
  if (typeof value === 'string' && isUnicastV6(value)) return value;
  throw invalid(`${name} must be the IPv6 address of one machine, without a zone`);
}

function mac(name: string, value: unknown): string {
  if (typeof value === 'string' && UNICAST_MAC.test(value)) return value;
  throw invalid(`${name} must be a unicast MAC address, in lower case`);
}

function invalid(message: string): RequestError {
  return new RequestError('EINVAL', message);
}
