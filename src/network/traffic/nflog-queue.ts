/**
 * What of a group's log the kernel has not handed out yet: it waits in the netlink socket of the group's reader. Sources:
 * kernel net/netfilter/nfnetlink_log.c (`seq_show`) and net/netlink/af_netlink.c (`netlink_native_seq_show`).
 */
import { readFile } from 'node:fs/promises';

const NETLINK_NETFILTER = 12;

/** Bytes that its reader has not taken yet. 0 where it has none. */
export async function waitingBytes(group: number): Promise<number> {
  const [groups, sockets] = await Promise.all(
    ['/proc/net/netfilter/nfnetlink_log', '/proc/net/netlink'].map((path) =>
      readFile(path, 'utf8').catch(() => ''),
    ),
  );
  return waitingIn({ groups: groups ?? '', sockets: sockets ?? '' }, group);
}

/**
 * The same, of the text of both. Pure.
 *
 * - `groups`: group, port of its reader, …
 * - `sockets`: a line of names, and then address, protocol, port, groups, bytes that wait to be read, …
 */
export function waitingIn(text: { groups: string; sockets: string }, group: number): number {
  const reader = rows(text.groups).find(([number]) => Number(number) === group)?.[1];
  if (reader === undefined) return 0;
  const socket = rows(text.sockets).find(
    ([, protocol, port]) => Number(protocol) === NETLINK_NETFILTER && port === reader,
  );
  return Number(socket?.[4] ?? 0);
}

function rows(text: string): string[][] {
  return text.split('\n').map((line) => line.trim().split(/\s+/));
}
