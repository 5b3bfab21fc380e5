/** Networks of the host's own, which are no public addresses: one set, in which the rules of all VMs look. */
import { HOST_NETWORKS, inet } from './names.ts';
import type { NftTransaction } from './json.ts';
import { addElements, cidrElements } from './parts.ts';

/**
 * These, and no others, from now on. Connections into one that has come are cut where only a rule for public addresses
 * allows them; those into one that has gone are as any. The base must be there.
 * @param cidrs of IPv6
 */
export function setHostNetworks(cidrs: readonly string[]): NftTransaction {
  const set = inet(HOST_NETWORKS);
  const elem = cidrElements(cidrs, 6);
  return [{ flush: { set } }, ...(elem.length === 0 ? [] : [addElements(set, elem)])];
}
