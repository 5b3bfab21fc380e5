/**
 * Taps that root makes ahead of time for a user who may not make any. The user's QEMU may open them, and that is all:
 * addresses, rules and names are root's to give, see lender.ts. All there is to know of one is on it: its user in its
 * alias, its addresses in its number.
 */
import { readFile } from 'node:fs/promises';
import { TAP_GROUP } from '../../../nft/index.ts';
import { NetworkSetupError } from '../../errors.ts';
import {
  endpointAt,
  firstFree,
  GATEWAY_MAC,
  parsePool,
  TAP_NAME,
  type Endpoint,
} from '../endpoint.ts';
import { hostPool } from '../host-settings.ts';
import { ipBatch } from '../ip-command.ts';
import { hardenTap, interfaces, makeOrRemove, removeTap } from '../tap.ts';

/** For the service that lends them: entries of those that are lent out, logs, and one socket for each user. */
export const LENT_DIR = '/run/qmp-agent-taps';
const ALIAS = 'qmp-agent:lent';
const ALIAS_TEXT = new RegExp(`^${ALIAS}:([0-9]+)$`);
const NAME = new RegExp(`^${TAP_NAME}([0-9]+)$`);

/** One that is there. */
export interface LentTap {
  readonly endpoint: Endpoint;
  /** Who may open it. */
  readonly uid: number;
}

/** What is to be lent. */
export interface LendingOptions {
  /** Taps, at least. */
  readonly count: number;
  /** To whom. */
  readonly uid: number;
}

/**
 * It is its user's to open; then it is hardened; then it is in the group that the rules drop by, and says whose it is,
 * which makes it one of ours. It is down. Pure.
 */
export function lentCommands(tap: string, uid: number): { make: string[]; name: string[] } {
  return {
    make: [`tuntap add dev ${tap} mode tap user ${uid}`],
    name: [`link set dev ${tap} group ${TAP_GROUP} address ${GATEWAY_MAC} alias ${ALIAS}:${uid}`],
  };
}

/** The MAC address of whoever is behind it; no {@link GATEWAY_MAC}. Pure. */
export function lentMac(index: number): string {
  const last = [index >> 8, index & 0xff].map((byte) => byte.toString(16).padStart(2, '0'));
  return `02:71:6d:71:${last.join(':')}`;
}

/** All there are, lowest number first. */
export async function lentTaps(): Promise<LentTap[]> {
  const pool = parsePool(await hostPool());
  const numbers = (await interfaces()).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  const all = await Promise.all(
    numbers
      .sort((a, b) => a - b)
      .map(async (index) => {
        const endpoint = endpointAt(pool, index);
        return { endpoint, uid: await userOf(endpoint.tap) };
      }),
  );
  return all.flatMap(({ endpoint, uid }) => (uid === undefined ? [] : [{ endpoint, uid }]));
}

/** Whether there is one for this user, whoever lends it just now. */
export async function hasTapFor(uid: number): Promise<boolean> {
  for (const name of await interfaces()) {
    if (NAME.test(name) && (await userOf(name)) === uid) return true;
  }
  return false;
}

/** Who may open it; undefined: it is gone, or another has its name. */
export async function userOf(tap: string): Promise<number | undefined> {
  const uid = ALIAS_TEXT.exec((await readFact(tap, 'ifalias')) ?? '')?.[1];
  return uid === undefined ? undefined : Number(uid);
}

/** Whether a process has it open: the kernel's word (drivers/net/tun.c sets the carrier). A tap that is down has none. */
export async function isOpened(tap: string): Promise<boolean> {
  return (await readFact(tap, 'carrier')) === '1';
}

/**
 * Makes as many as are missing. Under the host's lock.
 * @returns whether any was
 * @throws NetworkSetupError the pool has no room; NetworkInterfaceError; HostError. Those that were made stay then
 */
export async function makeLentTaps({ count, uid }: LendingOptions): Promise<boolean> {
  const pool = parsePool(await hostPool());
  const there = (await lentTaps()).filter((tap) => tap.uid === uid).length;
  for (let n = there; n < count; n++) {
    const index = firstFree(pool, await interfaces());
    if (index === undefined) {
      throw new NetworkSetupError(`${pool.cidr} has no room for ${count} taps`, {
        hint: 'Give fewer, or a larger network: qmp-agent setup network --pool CIDR.',
      });
    }
    await makeLentTap(endpointAt(pool, index).tap, uid);
  }
  return count > there;
}

/**
 * Makes another one of the same name: who has had it open has nothing of this one, and whatever he did to it (a user may
 * change his tap's type, offloads, carrier and owner, tun.c) is gone with it. Under the host's lock.
 * @throws NetworkInterfaceError; HostError. It may be gone then
 */
export async function remakeLentTap({ endpoint: { tap }, uid }: LentTap): Promise<void> {
  await removeTap(tap);
  await makeLentTap(tap, uid);
}

async function makeLentTap(tap: string, uid: number): Promise<void> {
  const { make, name } = lentCommands(tap, uid);
  await makeOrRemove(tap, undefined, async () => {
    await ipBatch(make);
    await hardenTap(tap);
    await ipBatch(name);
  });
}

/**
 * Takes all of them away. Under the host's lock.
 * @param o.except names of those that stay
 * @returns whether there was one
 * @throws NetworkSetupError a VM has one: none is taken away then
 */
export async function removeLentTaps({
  except = [],
  ...o
}: {
  except?: readonly string[];
  signal?: AbortSignal | undefined;
}): Promise<boolean> {
  const names = (await lentTaps()).map(({ endpoint }) => endpoint.tap);
  const all = names.filter((tap) => !except.includes(tap));
  const opened = [];
  for (const tap of all) if (await isOpened(tap)) opened.push(tap);
  if (opened.length > 0) {
    throw new NetworkSetupError(`VMs of other users have taps: ${opened.join(', ')}`, {
      hint: 'Have them end first (`ps -C qemu-system-x86_64 -o user,pid,args` shows whose they are).',
    });
  }
  for (const tap of all) await removeTap(tap, o);
  return all.length > 0;
}

async function readFact(tap: string, name: string): Promise<string | undefined> {
  // A tap that is down has no carrier to be read: EINVAL.
  return readFile(`/sys/class/net/${tap}/${name}`, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
}
