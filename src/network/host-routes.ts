/** Where a host has routes already: nobody of its own may have an address of its VMs. */
import { ipJson, type IpCallOptions } from './ip-command.ts';
import { isWithinPrivate } from './endpoint.ts';
import { isOurTap } from './tap.ts';

/** A route, as `ip -j route` has it. */
interface Route {
  readonly dst?: string;
  readonly dev?: string;
  readonly type?: string;
  readonly nexthops?: readonly { readonly dev?: string }[];
}

/** Behind these there is nobody: providers' routers and VPNs have them for whole ranges (ip-route(8)). */
const NOWHERE = ['blackhole', 'unreachable', 'prohibit', 'throw'];

/**
 * Whether anything of the host has an address in this network, or a route to it or to a part of it; in IPv4 also a route
 * to a private network that it is a part of. Routes of our own taps are none.
 * @returns a text for each
 * @throws as `ipJson`
 */
export async function routesInto(cidr: string, o: IpCallOptions = {}): Promise<string[]> {
  const isIpv6 = cidr.includes(':');
  const look = async (which: 'root' | 'match') =>
    (await ipJson(
      [isIpv6 ? '-6' : '-4', 'route', 'show', 'table', 'all', which, cidr],
      o,
    )) as Route[];
  const within = await look('root');
  const around = isIpv6 ? [] : (await look('match')).filter(isAroundPool);
  return textsOf([...within, ...around]);
}

/**
 * Whether a route around a pool leads to a network of somebody's. Those wider than the private ranges lead everywhere, as
 * the default route does: VPNs have `0.0.0.0/1`, say. Pure.
 */
export function isAroundPool({ dst = '', type = 'unicast' }: Route): boolean {
  return isWithinPrivate(dst) && !NOWHERE.includes(type);
}

function textsOf(routes: readonly Route[]): string[] {
  const texts = routes.flatMap(({ dst = '', dev, nexthops = [] }) => {
    const devs = dev === undefined ? nexthops.flatMap((hop) => hop.dev ?? []) : [dev];
    if (devs.some(isOurTap)) return [];
    return devs.length === 0 ? dst : `${dst} dev ${devs.join(', ')}`;
  });
  return [...new Set(texts)];
}
