/**
 * Makes a host forward for its VMs, and takes that back. Nothing else of the host is touched: rules of
 * others, their tables and settings stay as they are.
 */
import { isDeepStrictEqual } from 'node:util';
import { type IpVersion, NftClient } from '../../nft/index.ts';
import { NetworkRulesError, NetworkSetupError } from '../errors.ts';
import { parsePool } from './endpoint.ts';
import { guardedPools, hasFlushGuard, lowerFlushGuard, raiseFlushGuard } from './flush-guard.ts';
import {
  enableForwarding,
  forwardingName,
  isForwarding,
  isForwardingOurs,
  restoreForwarding,
} from './forwarding.ts';
import { withHostNetwork } from './host-dir.ts';
import { routesInto } from './host-routes.ts';
import {
  hostPools,
  type HostSettings,
  readSettings,
  removeSettings,
  SETTINGS_FILE,
  writeSettings,
} from './host-settings.ts';
import { addressesIn } from './ip-command.ts';
import { lentTaps, makeLentTaps, removeLentTaps, type LendingOptions } from './lent/lent-taps.ts';
import { startLending } from './lent/start.ts';
import { existingTaps, isBridged } from './tap.ts';
import { parseUla, randomUla } from './ula.ts';

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Pools that are guarded now and are to be no more. */
type Guarded = Readonly<Partial<Record<keyof HostSettings, string | undefined>>>;

/** What a host is to have, and what it goes back to. */
interface HostPlan {
  readonly settings: HostSettings;
  /** What the host's file says without us; undefined: there is none. */
  readonly before: HostSettings | undefined;
  /** Other pools that are guarded now. */
  readonly guarded?: Guarded;
}

/** What to do where somebody has what VMs are to have. */
const FREE_HINTS = {
  'network.pool':
    'Give a private network that nobody has (`ip -4 route show table all` has the host’s): qmp-agent setup network --pool CIDR.',
  'network.ipv6':
    'Give a prefix that nobody has, e.g. a part of yours that no network uses; or none, for a random one.',
} as const;

/** One thing that VMs need of a host. */
interface Need {
  readonly what: string;
  readonly isThere: (o: CallOptions) => Promise<boolean>;
  /** @returns whether there was anything to do */
  readonly make: (o: CallOptions) => Promise<boolean>;
  /** How it is called when it is taken back. Default: the same. */
  readonly undone?: string;
  readonly takeBack: (o: CallOptions) => Promise<boolean>;
  /** It is taps for users, which need all the rest. */
  readonly isLending?: true;
}

/** In the order in which they are made. */
function needsOf({ settings, before, guarded = {} }: HostPlan): readonly Need[] {
  const { pool, ula } = settings;
  return [
    forwardingOf(4),
    ...(ula === undefined ? [] : [forwardingOf(6)]),
    {
      what: `${SETTINGS_FILE}, for the next boot; VMs' addresses from ${[pool, ula].filter(Boolean).join(' and ')}`,
      undone: SETTINGS_FILE,
      isThere: () => isSettled(settings),
      make: () => settle(settings),
      takeBack: () => (before === undefined ? removeSettings() : settle(before)),
    },
    {
      what: 'nftables tables inet and netdev qmp_agent',
      isThere: (o) => new NftClient().hasBase(o),
      make: (o) => new NftClient().ensureBase(o),
      takeBack: removeTables,
    },
    guardOf('IPsec policies that block what no table has passed', pool, guarded.pool),
    ...(ula === undefined ? [] : [guardOf('the same policies for IPv6', ula, guarded.ula)]),
  ];
}

function forwardingOf(version: IpVersion): Need {
  const name = forwardingName(version);
  return {
    ...{ what: `${name} = 1`, undone: `${name} as it was` },
    isThere: () => isForwarding(version),
    make: (o) => enableForwarding(version, o),
    takeBack: () => restoreForwarding(version),
  };
}

/** What keeps VMs shut in where the tables are flushed. */
function guardOf(what: string, pool: string, guarded: string | undefined): Need {
  return {
    what,
    isThere: async (o) => (await hasFlushGuard(pool, o)) && guarded === undefined,
    make: (o) => moveFlushGuard({ from: guarded, to: pool }, o),
    takeBack: (o) => moveFlushGuard({ from: pool, to: guarded }, o),
  };
}

/** What there is of it before stays where it is taken back. */
function lendingOf(taps: LendingOptions, before: readonly string[]): Need {
  const ofUser = async () => (await lentTaps()).filter(({ uid }) => uid === taps.uid);
  return {
    what: `${taps.count} taps for user ${taps.uid}`,
    isThere: async () => (await ofUser()).length >= taps.count,
    make: () => makeLentTaps(taps),
    takeBack: () => removeLentTaps({ except: before }),
    isLending: true,
  };
}

/** One thing that was done, or need not be. */
export interface SetupStep {
  readonly what: string;
  readonly changed: boolean;
}

/** What {@link setUpNetwork} is given. */
export interface SetupOptions {
  /** CIDR that VMs' addresses are from, e.g. `10.210.0.0/16`. Default: as it was set up before, else {@link DEFAULT_POOL}. */
  readonly pool?: string | undefined;
  /**
   * CIDR that the IPv6 addresses of VMs are from, a unique local one (RFC 4193); `true`: as it was set up before, else a
   * random one. Default: as it was set up before, else VMs can have no IPv6.
   */
  readonly ipv6?: string | true | undefined;
  /** Taps that a user who may not make any can borrow, at least so many. Default: as there are. */
  readonly taps?: LendingOptions | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Does what is not done yet. Where any of it fails, what this call did is taken back, and nothing that was there before.
 * @throws ConfigError field `network.pool`, `network.ipv6`; NetworkSetupError VMs have addresses from another pool, or the
 *   pool has no room for so many taps, or the host cannot forward IPv6, or has routes into
 *   the pool or its prefix; TimeoutError nobody lends them; HostError ERR_HOST_PERMISSION, ERR_HOST_TOOL; NetworkRulesError
 */
export async function setUpNetwork({ signal, ...wanted }: SetupOptions = {}): Promise<SetupStep[]> {
  const { taps } = wanted;
  if (wanted.pool !== undefined) parsePool(wanted.pool); // before anything is done
  const o = { signal };
  const begun: Need[] = [];
  const steps = await withHostNetwork(signal, async () => {
    const inForce = await hostPools(); // what somebody else has written there is his to set right
    const before = await readSettings();
    const settings = settingsWanted(wanted, inForce);
    const guarded = await checkMoves({ settings, before }, inForce, o);
    const needs = [...needsOf({ settings, before, guarded })];
    if (taps !== undefined) needs.push(lendingOf(taps, await lentNames()));
    return makeAll(needs, begun, o);
  });
  if (taps === undefined) return steps;
  try {
    await startLending(taps.uid, o); // without the lock, which the lender needs
  } catch (error) {
    await withHostNetwork(undefined, () => takeBackLater(begun)).catch(() => undefined);
    throw error;
  }
  return steps;
}

/** @throws ConfigError field `network.ipv6` */
function settingsWanted({ pool, ipv6 }: SetupOptions, inForce: HostSettings): HostSettings {
  const ula = typeof ipv6 === 'string' ? parseUla(ipv6).cidr : inForce.ula;
  return { pool: pool ?? inForce.pool, ula: ula ?? (ipv6 === true ? randomUla() : undefined) };
}

/** A VM keeps its addresses as long as it runs, and what guards it has to know them. @throws NetworkSetupError */
async function checkMoves(
  { settings: wanted, before }: HostPlan,
  inForce: HostSettings,
  o: CallOptions,
): Promise<Guarded> {
  const [pool, ula] = (['pool', 'ula'] as const).map((name) =>
    inForce[name] === wanted[name] ? undefined : inForce[name],
  );
  if (pool !== undefined)
    refuseMove(await routedTaps(o), { field: 'network.pool', from: pool, to: wanted.pool });
  if (ula !== undefined)
    refuseMove(await tapsIn(ula, o), { field: 'network.ipv6', from: ula, to: wanted.ula });
  // The default pool is in force everywhere, but shuts nobody out before there is a set-up.
  if (pool !== undefined || before === undefined) await checkIsFree('network.pool', wanted.pool, o);
  if (wanted.ula !== undefined && wanted.ula !== inForce.ula)
    await checkIsFree('network.ipv6', wanted.ula, o);
  const guarded = async (from: string | undefined) =>
    from !== undefined && (await hasFlushGuard(from, o)) ? from : undefined;
  return { pool: await guarded(pool), ula: await guarded(ula) };
}

/** Interfaces with addresses of this prefix, and taps that may have some: they lose them, or have none yet, while they are down. */
async function tapsIn(ula: string, o: CallOptions): Promise<string[]> {
  const down = (await existingTaps(o)).filter(({ tap, isUp }) => !isUp && !isBridged(tap));
  return [...new Set([...(await addressesIn(ula, o)), ...down.map(({ tap }) => tap)])];
}

/** The policies block whoever has such an address and is no VM: the host's own neighbours, say. @throws NetworkSetupError */
async function checkIsFree(
  field: keyof typeof FREE_HINTS,
  cidr: string,
  o: CallOptions,
): Promise<void> {
  const routes = await routesInto(cidr, o);
  if (routes.length === 0) return;
  throw new NetworkSetupError(
    `${field} cannot be ${cidr}: the host has routes into it (${routes.join('; ')})`,
    { hint: FREE_HINTS[field] },
  );
}

function refuseMove(
  taps: readonly string[],
  { field, from, to }: { field: string; from: string; to: string | undefined },
): void {
  if (taps.length === 0) return;
  throw new NetworkSetupError(
    `${field} cannot become ${to}: ${taps.length} taps have addresses from ${from} (${taps.join(', ')})`,
    {
      hint: `Remove their VMs first, or the taps that users borrow (setup network --undo); or leave ${field} at ${from}.`,
    },
  );
}

/** @param begun becomes what was not there, the last first; taken back already where it rejects */
async function makeAll(
  needs: readonly Need[],
  begun: Need[],
  o: CallOptions,
): Promise<SetupStep[]> {
  const steps: SetupStep[] = [];
  try {
    for (const need of needs) {
      if (!(await need.isThere(o))) begun.unshift(need);
      steps.push({ what: need.what, changed: await need.make(o) });
    }
    return steps;
  } catch (error) {
    for (const need of begun) await takeBackMade(need).catch(() => undefined); // the error is what counts
    throw error;
  }
}

/** VMs that are there meanwhile need what is there of tables. */
async function takeBackMade({ takeBack }: Need): Promise<void> {
  if (takeBack !== removeTables || (await routedTaps({})).length === 0) await takeBack({});
}

/** As the lock was free since, others may have begun to live by what was made: then it stays, but for taps that nobody has open. */
async function takeBackLater(begun: readonly Need[]): Promise<void> {
  for (const need of begun) {
    if (need.isLending !== true && (await routedTaps({})).length > 0) return;
    await takeBackMade(need).catch(() => undefined);
  }
}

/**
 * Undoes what {@link setUpNetwork} did.
 * @throws NetworkSetupError VMs still use it
 */
export async function undoNetworkSetup(o: CallOptions = {}): Promise<SetupStep[]> {
  return withHostNetwork(o.signal, async () => {
    const taps = await ownTaps(o);
    if (taps.length > 0) {
      throw new NetworkSetupError(`${taps.length} VMs have taps: ${taps.join(', ')}`, {
        hint: 'Remove them first (`qmp-agent list`, `qmp-agent remove --force`), then what is left (`qmp-agent gc`).',
      });
    }
    const settings = await hostPools();
    const needs = needsOf({ settings, before: undefined });
    const steps: SetupStep[] = [];
    if (await removeLentTaps(o)) steps.push({ what: 'taps for users', changed: true });
    for (const { what, undone = what, takeBack } of [
      ...(await orphans(settings, o)),
      ...needs.toReversed(),
    ])
      steps.push({ what: undone, changed: await takeBack(o) });
    return steps;
  });
}

/** What is there of a set-up of which the file says nothing: it was changed by hand, or who made or undid it was killed. */
async function orphans({ pool, ula }: HostSettings, o: CallOptions): Promise<readonly Need[]> {
  const pools = (await guardedPools(o)).filter((one) => one !== pool && one !== ula);
  return [
    ...pools.map((one) => guardOf(`IPsec policies for ${one}`, one, undefined)),
    ...(ula === undefined && (await isForwardingOurs(6)) ? [forwardingOf(6)] : []),
  ];
}

/** Taps with addresses of the host's pool: of VMs, and those that are made for some. */
async function routedTaps(o: CallOptions): Promise<string[]> {
  return [...(await ownTaps(o)), ...(await lentNames())];
}

/** Taps of VMs that the host forwards for, made by who may make them. */
async function ownTaps(o: CallOptions): Promise<string[]> {
  const taps = (await existingTaps(o)).map(({ tap }) => tap);
  return taps.filter((tap) => !isBridged(tap));
}

async function lentNames(): Promise<string[]> {
  return (await lentTaps()).map(({ endpoint }) => endpoint.tap);
}

/** Whether {@link setUpNetwork} was done and still holds: where others forward, nobody has asked for it. */
export async function isSetUp(): Promise<boolean> {
  return (await readSettings()) !== undefined && (await isForwarding());
}

async function isSettled(settings: HostSettings): Promise<boolean> {
  return isDeepStrictEqual(await readSettings(), settings);
}

async function settle(settings: HostSettings): Promise<boolean> {
  if (await isSettled(settings)) return false;
  await writeSettings(settings);
  return true;
}

async function removeTables(o: CallOptions): Promise<boolean> {
  const nft = new NftClient();
  const had = await nft.hasBase(o).catch((error: unknown) => {
    // Those of another version of this program are ours, too; who meets them is told to undo the set-up.
    if (error instanceof NetworkRulesError && error.reason === 'schema') return true;
    throw error;
  });
  await nft.removeBase(o);
  return had;
}

/** The new one is there before the old one goes. @returns whether any came or went */
async function moveFlushGuard(
  { from, to }: { from: string | undefined; to: string | undefined },
  o: CallOptions,
): Promise<boolean> {
  const isNew = to !== undefined && !(await hasFlushGuard(to, o)) && (await raiseFlushGuard(to, o));
  const isOld = from !== undefined && (await hasFlushGuard(from, o));
  if (from !== undefined) await lowerFlushGuard(from, o);
  return isNew || isOld;
}
