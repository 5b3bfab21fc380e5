/** Ports of the host that lead to a port of a VM, as docker's `-p` has them. Pure. */
import { isIPv4 } from 'node:net';
import { ConfigError } from '../errors.ts';

/** One of them. */
export interface PublishedHostPort {
  readonly protocol: 'tcp' | 'udp';
  /** IPv4 address of the host that it is bound to. */
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

/** Nobody but the host's own users reaches it. */
const DEFAULT_ADDRESS = '127.0.0.1';
const PORTS = /^(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/;

/**
 * Reads `8080:80`, `5353:53/udp` or `0.0.0.0:8080:80`, the host's port first.
 * @throws ConfigError field `vm.publish`
 */
export function parsePublished(text: string): PublishedHostPort {
  const parts = text.split(':');
  const hostAddress = parts.length === 3 ? (parts.shift() ?? '') : DEFAULT_ADDRESS;
  const [, host = '', guest = '', protocol = 'tcp'] = PORTS.exec(parts.join(':')) ?? [];
  const [hostPort, guestPort] = [Number(host), Number(guest)];
  if (isIPv4(hostAddress) && isPort(hostPort) && isPort(guestPort)) {
    return { protocol: protocol as 'tcp' | 'udp', hostAddress, hostPort, guestPort };
  }
  throw new ConfigError(`${JSON.stringify(text)} publishes no port`, {
    field: 'vm.publish',
    value: text,
    hint: 'Give the host’s port and the guest’s: 8080:80, 5353:53/udp, or 0.0.0.0:8080:80 for all who reach the host.',
  });
}

/** `127.0.0.1:5353 -> 53/udp`; TCP is not named. */
export function publishedText({ protocol, ...port }: PublishedHostPort): string {
  const { hostAddress, hostPort, guestPort } = port;
  return `${hostAddress}:${hostPort} -> ${guestPort}${protocol === 'udp' ? '/udp' : ''}`;
}

/** @throws ConfigError; also where two are bound to the same */
export function parseAllPublished(texts: readonly string[]): PublishedHostPort[] {
  const ports = texts.map(parsePublished);
  const bound = ports.map(
    ({ protocol, hostAddress, hostPort }) => `${hostAddress}:${hostPort}/${protocol}`,
  );
  const twice = bound.find((place, index) => bound.indexOf(place) !== index);
  if (twice === undefined) return ports;
  throw new ConfigError(`${twice} is published twice`, {
    field: 'vm.publish',
    value: texts,
    hint: 'Give each port of the host to one port of the guest.',
  });
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}
