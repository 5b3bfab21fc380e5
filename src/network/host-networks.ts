/**
 * The host's own networks in IPv6. Where IPv4 has private addresses, and the rules know them, machines of a LAN have
 * addresses like everybody's in IPv6: what tells them is that the host reaches them without a router. They come and go
 * while VMs run: whoever adds the rules of one tells the rules which they are, and the network service sees to it that
 * the rules know them as long as there is one.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  contains,
  NftClient,
  parseCidr6,
  setHostNetworks,
  withoutNested,
} from '../../nft/index.ts';
import { NetworkRulesError } from '../errors.ts';
import { withHostNetwork } from './host-dir.ts';
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

/** What is wider leads everywhere, as the default route does: VPNs have 2000::/3 (ip-route(8): a point-to-point link). */
const MIN_LENGTH = 16;

/**
 * Has the rules know them as they are now. Nothing is done where the rules are not there: whoever brings them back
 * brings the networks, too.
 * @returns them; undefined: the rules knew them already
 * @throws as `ipJson` and `NftClient.apply`; HostError ERR_HOST_PERMISSION
 */
export async function followHostNetworks(
  o: { signal?: AbortSignal | undefined } = {},
): Promise<string[] | undefined> {
  const nft = new NftClient();
  const [known, seen] = await Promise.all([nft.hostNetworks(o), hostNetworks(o)]);
  if (known === undefined || isDeepStrictEqual(known.sort(), seen.sort())) return undefined;
  // Who looks later writes later, under the lock: so nothing that was is written over what is.
  return withHostNetwork(o.signal, async () => {
    const networks = await hostNetworks(o);
    await nft.apply(setHostNetworks(networks), o).catch(ignoreMissing);
    return networks;
  });
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof NetworkRulesError && error.reason === 'missing')) throw error;
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
  if (range === undefined || range.length < MIN_LENGTH) return false;
  return contains(parseCidr6('2000::/3')!, range);
}

/** Not by a router, and not an address of the host itself, which the rules know. */
function isOnLink({ type = 'unicast', dev = '', gateway, via, nexthops }: Route): boolean {
  const isDirect = gateway === undefined && via === undefined && nexthops === undefined;
  return type === 'unicast' && isDirect && !isOurTap(dev);
}
