/**
 * What a VM on a bridge may be on its LAN: itself. A table of its own for each tap, `netdev qmp_agent_TAP`, with one
 * chain at the tap's ingress, before the bridge sees a frame: the VM's MAC address, with its IPv4 address in IPv4
 * and ARP. All else is dropped: frames with a VLAN tag (`ether type` is compared as it is in the frame), IPv6,
 * spanning tree and whatever speaks for another. Where an IPv4 packet goes to is not looked at.
 *
 * Not in the tables that VMs behind the host share: those want `setup network`, and this does not.
 */
import {
  ACCEPT,
  DROP,
  field,
  is,
  isNot,
  type NftCommand,
  type NftTransaction,
  type Statement,
} from './json.ts';
import { TABLE } from './names.ts';
import { chainNames, type NftReply } from './reply.ts';

/** Name of the chain. */
const CHAIN = 'ingress';
const PREFIX = `${TABLE}_`;
/** Names of taps that are ports of a bridge; a number follows. */
export const BRIDGED_TAP_NAME = 'qmpb';
/** A user's own table may begin like ours. */
const OURS = new RegExp(`^${PREFIX}${BRIDGED_TAP_NAME}[0-9]+$`);
/** Before anybody else's, as of the guard. */
const PRIORITY = -500;

/** A VM on a bridge. */
export interface BridgedVm {
  readonly tap: string;
  readonly mac: string;
  /** Its IPv4 address. */
  readonly address: string;
}

const table = (tap: string) => ({ family: 'netdev' as const, name: `${PREFIX}${tap}` });

/** To be applied when the tap is there, and before it goes up. Instead of what an earlier tap of that name has left. */
export function addBridgeGuard({ tap, mac, address }: BridgedVm): NftTransaction {
  const { family, name } = table(tap);
  const rule = (...expr: Statement[]): NftCommand => ({
    add: { rule: { family, table: name, chain: CHAIN, expr } },
  });
  const etherType = field('ether', 'type');
  const arp = (key: string) => field('arp', key);
  return [
    ...removeBridgeGuard(tap),
    { add: { table: table(tap) } },
    {
      create: {
        chain: {
          ...{ family, table: name, name: CHAIN, type: 'filter', hook: 'ingress', dev: tap },
          ...{ prio: PRIORITY, policy: 'drop' },
        },
      },
    },
    rule(isNot(field('ether', 'saddr'), mac), { counter: null }, DROP),
    rule(is(etherType, 'ip'), is(field('ip', 'saddr'), address), ACCEPT),
    rule(
      ...[is(etherType, 'arp'), is(arp('htype'), 1), is(arp('ptype'), 'ip'), is(arp('hlen'), 6)],
      ...[is(arp('plen'), 4), is(arp('saddr ether'), mac), is(arp('saddr ip'), address), ACCEPT],
    ),
    rule({ counter: null }, DROP),
  ];
}

/** No error where it is gone: it is added first. */
export function removeBridgeGuard(tap: string): NftTransaction {
  return [{ add: { table: table(tap) } }, { delete: { table: table(tap) } }];
}

/** Taps that have one. */
export function guardedTaps(reply: NftReply): string[] {
  return chainNames(reply).flatMap(({ family, table: name, name: chain }) =>
    family === 'netdev' && chain === CHAIN && OURS.test(name) ? [name.slice(PREFIX.length)] : [],
  );
}
