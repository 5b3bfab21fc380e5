/**
 * The host's own networks in IPv6. Where IPv4 has private addresses, and the rules know them, machines of a LAN have
 * addresses like everybody's in IPv6: what tells them is that the host reaches them without a router.
 */
import { contains, parseCidr6, withoutNested } from '../../nft/index.ts';
import { ipJson, type IpCallOptions } from './ip-command.ts';
import { isOurTap } from './tap.ts';

/** A route, as `ip -j route` has it. */
interface Route {
  readonly dst?: string;
  readonly dev?: string;
  readonly type?: string;
  readonly gateway?: string;
  readonly via?: unknown;
  readonly nexthops?: unknown;
}

/** As CIDRs in the order of addresses, none within another. @throws as `ipJson` */
export async function hostNetworks(o: IpCallOptions = {}): Promise<string[]> {
  const routes = (await ipJson(['-6', 'route', 'show', 'table', 'all'], o)) as Route[];
  return onLink(routes);
}

/** Pure. @param routes of `ip -j -6 route show table all` */
export function onLink(routes: readonly Route[]): string[] {
  const networks = routes.filter(isOnLink).flatMap(({ dst = '' }) => dst);
  return withoutNested(networks.filter(isGlobal), 6).map(({ address, length }) =>
    length === 128 ? address : `${address}/${length}`,
  );
}

/** Global unicast addresses (RFC 4291, 2.4); all others are reserved in the rules. */
function isGlobal(cidr: string): boolean {
  const range = parseCidr6(cidr);
  return range !== undefined && contains(parseCidr6('2000::/3')!, range);
}

/** Not by a router, and not an address of the host itself, which the rules know. */
function isOnLink({ type = 'unicast', dev = '', gateway, via, nexthops }: Route): boolean {
  const isDirect = gateway === undefined && via === undefined && nexthops === undefined;
  return type === 'unicast' && isDirect && !isOurTap(dev);
}
