/** What VMs with a tap need of the host, and what is in their way. */
import { NftClient } from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';
import { isThere } from '../host-files.ts';
import {
  advertisedInterfaces,
  hasDefaultRoute6,
  hostPools,
  isForwarding,
  probeTaps,
  routesInto,
  tapObstacle,
  type TapObstacle,
} from '../network/index.ts';
import { readText } from './probe.ts';
import { ok, warn, type Check } from './types.ts';

const PROBE_MS = 5_000;
/** Only there where br_netfilter is loaded; docker does so (Documentation/networking/ip-sysctl.rst). */
const BRIDGE_FILTER = '/proc/sys/net/bridge/bridge-nf-call-iptables';
const SET_UP = 'run as root: qmp-agent setup network';

/** What decides. */
export interface NetworkFacts {
  readonly hasTun: boolean;
  readonly forwards: boolean;
  /** Where VMs' addresses are from; or why nobody knows. */
  readonly pool: string | ConfigError;
  /** What VMs with IPv6 need; undefined: the host is not set up for them. */
  readonly ipv6?: Ipv6Facts | undefined;
  /** Routes of the host that lead into the VMs' addresses. */
  readonly routes: readonly string[];
  /** Chains of others at the forward hook that drop what nobody accepts, as `family table chain`. */
  readonly droppingChains: readonly string[];
  /** Whether the rules at that hook see what passes a bridge of the host, too. */
  readonly filtersBridges: boolean;
  /** What the configuration gives a VM: `auto`, or a mode. */
  readonly byDefault: string;
  /** Why `auto` comes down to isolated; undefined where it does not. */
  readonly obstacle: TapObstacle | undefined;
}

/** What decides about IPv6. */
export interface Ipv6Facts {
  /** Where VMs' addresses are from. */
  readonly ula: string;
  readonly forwards: boolean;
  readonly routes: readonly string[];
  /** Interfaces whose routes run out, as a router does not hear of them any more. */
  readonly deaf: readonly string[];
  /** Whether the host itself has a way out. */
  readonly hasDefaultRoute: boolean;
}

/** Looks at the host. */
export async function probeNetwork(byDefault: string): Promise<NetworkFacts> {
  const pools = await probePools();
  const pool = pools instanceof ConfigError ? pools : pools.pool;
  const ipv6 = 'ula' in pools && pools.ula !== undefined ? await probeIpv6(pools.ula) : undefined;
  const [hasTun, forwards, routes, droppingChains, bridgeFilter, taps] = await Promise.all([
    isThere('/dev/net/tun'),
    isForwarding(),
    typeof pool === 'string' ? routesInto(pool).catch(() => []) : [],
    new NftClient().foreignDrops({ timeoutMs: PROBE_MS }).catch(() => []), // where we may not look, too
    readText(BRIDGE_FILTER),
    probeTaps(),
  ]);
  const filtersBridges = bridgeFilter?.trim() === '1';
  const obstacle = tapObstacle(taps);
  const found = { hasTun, forwards, pool, ipv6, routes, droppingChains, filtersBridges };
  return { ...found, byDefault, obstacle };
}

/** Judges. None of it is a failure: VMs may be isolated. */
export function judgeNetwork(facts: NetworkFacts): Check[] {
  const { hasTun, forwards, droppingChains, filtersBridges } = facts;
  return [
    judgeDefault(facts),
    hasTun
      ? ok('network.tun', '/dev/net/tun is there')
      : warn('network.tun', '/dev/net/tun is missing: no VM can have a tap', 'modprobe tun'),
    forwards
      ? ok('network.forwarding', 'the host forwards packets')
      : warn('network.forwarding', 'the host does not forward packets', SET_UP),
    judgeAddresses(facts),
    ...(facts.ipv6 === undefined ? [] : [judgeIpv6(facts.ipv6)]),
    ...droppingChains.map((chain) =>
      warn(
        'network.firewall',
        `another firewall drops what it does not accept (${chain}): packets of VMs, too`,
        acceptIn(chain),
      ),
    ),
    ...(filtersBridges && droppingChains.length > 0
      ? [
          warn(
            'network.bridge',
            `that firewall sees what passes bridges, too (br_netfilter): VMs with --network bridge=NAME may reach nobody`,
            'let them through there (iptables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT), or have bridges pass it by: sysctl -w net.bridge.bridge-nf-call-iptables=0',
          ),
        ]
      : []),
  ];
}

async function probePools(): Promise<{ pool: string; ula: string | undefined } | ConfigError> {
  return hostPools().catch((error: unknown) => {
    if (error instanceof ConfigError) return error;
    throw error;
  });
}

async function probeIpv6(ula: string): Promise<Ipv6Facts> {
  const [forwards, routes, deaf, hasDefaultRoute] = await Promise.all([
    isForwarding(6),
    routesInto(ula).catch(() => []),
    advertisedInterfaces().catch(() => []),
    hasDefaultRoute6().catch(() => true),
  ]);
  return { ula, forwards, routes, deaf: forwards ? deaf : [], hasDefaultRoute };
}

function judgeAddresses({ pool, routes }: NetworkFacts): Check {
  const id = 'network.addresses';
  if (typeof pool !== 'string') return warn(id, pool.message, pool.hint ?? SET_UP);
  if (routes.length === 0) return ok(id, `${pool} is free for VMs`);
  return warn(
    id,
    `the host has routes into ${pool}: ${routes.join('; ')}`,
    'VMs with such addresses cannot be told from those networks: take these routes away, or give VMs others (qmp-agent setup network --pool CIDR)',
  );
}

/** What is in the way of VMs with IPv6, the worst first. */
function judgeIpv6({ ula, forwards, routes, deaf, hasDefaultRoute }: Ipv6Facts): Check {
  const id = 'network.ipv6';
  if (!forwards) return warn(id, 'the host does not forward IPv6 packets', `${SET_UP} --ipv6`);
  if (deaf.length > 0) {
    return warn(
      id,
      `the host forwards IPv6 and so loses its own, which it has by router advertisements on ${deaf.join(', ')}`,
      deaf
        .map((name) => `sysctl -w net.ipv6.conf.${name.replaceAll('.', '/')}.accept_ra=2`)
        .join('; '),
    );
  }
  if (routes.length > 0) {
    return warn(
      id,
      `the host has routes into ${ula}: ${routes.join('; ')}`,
      'take these routes away, or give VMs other addresses (qmp-agent setup network --ipv6 CIDR)',
    );
  }
  return hasDefaultRoute
    ? ok(id, `VMs may have IPv6 (--ipv6), with addresses from ${ula}`)
    : warn(
        id,
        'the host has no default route of IPv6: that of VMs leads nowhere',
        'give the host IPv6, or have VMs without (no --ipv6)',
      );
}

/** What a VM has for which no network is given. */
function judgeDefault({ byDefault, obstacle }: NetworkFacts): Check {
  const id = 'network.default';
  const found = (mode: string, why: string) =>
    `VMs are ${mode} where nothing else is asked for: ${why}`;
  if (byDefault !== 'auto') return ok(id, found(byDefault, 'the configuration says so'));
  return obstacle === undefined
    ? ok(
        id,
        found('nat-filtered', 'this process may make taps or borrow them, and the host is set up'),
      )
    : warn(id, found('isolated', obstacle.message), obstacle.hint);
}

/** Rules for the chain of others: only they can accept there. */
function acceptIn(chain: string): string {
  const target = /DOCKER|\bfilter FORWARD$/.test(chain)
    ? 'iptables -I DOCKER-USER (or FORWARD) -i qmpa+ -j ACCEPT, and the same with -o'
    : `nft insert rule ${chain} iifname "qmpa*" accept, and the same with oifname`;
  return `let them through there; our own rules still filter them: ${target}`;
}
