/** The record types that are served, and how. Numbers: IANA's "DNS Parameters". */

export const TYPE_A = 1;
export const TYPE_CNAME = 5;
export const TYPE_SOA = 6;
export const TYPE_PTR = 12;
export const TYPE_AAAA = 28;
export const TYPE_SVCB = 64;
export const TYPE_HTTPS = 65;

/** `upstream`: asked for there. `empty`: answered here, "there is such a name, but no such record". */
export type Service = 'upstream' | 'empty';

/**
 * Other types are refused: transfers, ANY, and those that carry whatever one likes (NULL, KEY, …).
 * HTTPS and SVCB are answered as empty: their address hints must not point past what has been opened. So is AAAA to
 * whoever has no IPv6: clients should take to IPv4 at once.
 */
const SERVED = new Map<number, { name: string; service: Service }>([
  [TYPE_A, { name: 'A', service: 'upstream' }],
  [2, { name: 'NS', service: 'upstream' }],
  [TYPE_CNAME, { name: 'CNAME', service: 'upstream' }],
  [TYPE_SOA, { name: 'SOA', service: 'upstream' }],
  [TYPE_PTR, { name: 'PTR', service: 'upstream' }],
  [15, { name: 'MX', service: 'upstream' }],
  [16, { name: 'TXT', service: 'upstream' }],
  [TYPE_AAAA, { name: 'AAAA', service: 'upstream' }],
  [33, { name: 'SRV', service: 'upstream' }],
  [TYPE_SVCB, { name: 'SVCB', service: 'empty' }],
  [TYPE_HTTPS, { name: 'HTTPS', service: 'empty' }],
  [257, { name: 'CAA', service: 'upstream' }],
]);

/** Refused ones that deserve their name in the log. */
const REFUSED = new Map<number, string>([
  [10, 'NULL'],
  [13, 'HINFO'],
  [25, 'KEY'],
  [35, 'NAPTR'],
  [37, 'CERT'],
  [43, 'DS'],
  [44, 'SSHFP'],
  [46, 'RRSIG'],
  [48, 'DNSKEY'],
  [52, 'TLSA'],
  [249, 'TKEY'],
  [251, 'IXFR'],
  [252, 'AXFR'],
  [255, 'ANY'],
]);

/** How the type is served; undefined where it is refused. */
export function serviceOf(type: number, { hasIpv6 }: { hasIpv6: boolean }): Service | undefined {
  return type === TYPE_AAAA && !hasIpv6 ? 'empty' : SERVED.get(type)?.service;
}

/** Whether answers of the type are addresses. */
export function isAddressType(type: number): boolean {
  return type === TYPE_A || type === TYPE_AAAA;
}

/** The type's name; `TYPE123` where it has none here (RFC 3597, 5). */
export function typeName(type: number): string {
  return SERVED.get(type)?.name ?? REFUSED.get(type) ?? `TYPE${type}`;
}
