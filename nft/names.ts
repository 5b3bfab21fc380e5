/** What our objects in the kernel are called. Everything that is ours is in the two tables of this name. */
import type { IpVersion } from './address.ts';
import type { Family, Named } from './json.ts';

/** Name of both tables: `inet qmp_agent` and `netdev qmp_agent`. */
export const TABLE = 'qmp_agent';

/**
 * Interface group of all taps; they join it before they go up. What comes from the group and is in no
 * VM's rules is dropped.
 */
export const TAP_GROUP = 20813;

/**
 * nflog group of all logs, allowed and denied; and that of VMs on lent taps. The kernel gives a group to one reader, and
 * those have a service, and so a reader, of their own.
 */
export const LOG_GROUP = 20813;
export const LENT_LOG_GROUP = 20814;

/** Version of the shared chains and sets. Tables of another version cannot be added to. */
export const SCHEMA_VERSION = 6;

/** An empty chain that says which version the tables are of. */
export const SCHEMA_CHAIN_PREFIX = 'schema_';

/** The set of the host's own networks (IPv6), see `setHostNetworks`. */
export const HOST_NETWORKS = 'hostnets6';

/** Names of what belongs to one VM. A tap's name has at most 15 characters (IFNAMSIZ). */
export const chainOfDevice = (tap: string): string => `in_${tap}`;
export const chainOfPolicy = (tap: string): string => `out_${tap}`;
export const chainOfNew = (tap: string): string => `new_${tap}`;
export const setOfRule = (tap: string, ruleId: number, version: IpVersion = 4): string =>
  `to${version === 4 ? '' : version}_${tap}_${ruleId}`;

/** The named limits that a VM may have. */
export const VM_LIMITS = ['up', 'down', 'dns'] as const;
export type VmLimit = (typeof VM_LIMITS)[number];
export const limitOf = (tap: string, kind: VmLimit): string => `${kind}_${tap}`;
/** The map from a tap to its limit. */
export const mapOfLimit = (kind: VmLimit): string => `rate_${kind}`;

export const inet = (name: string): Named => named('inet', name);
export const netdev = (name: string): Named => named('netdev', name);

function named(family: Family, name: string): Named {
  return { family, table: TABLE, name };
}
