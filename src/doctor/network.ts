/** What VMs with a tap need of the host, and what is in their way. */
import { NftClient } from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';
import { isThere } from '../host-files.ts';
import {
  hostPool,
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

/** Looks at the host. */
export async function probeNetwork(byDefault: string): Promise<NetworkFacts> {
  const pool = await probePool();
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
  return { hasTun, forwards, pool, routes, droppingChains, filtersBridges, byDefault, obstacle };
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

async function probePool(): Promise<string | ConfigError> {
  return hostPool().catch((error: unknown) => {
    if (error instanceof ConfigError) return error;
    throw error;
  });
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
