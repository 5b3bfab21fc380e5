/**
 * Makes a host forward for its VMs, and takes that back. Nothing else of the host is touched: rules of
 * others, their tables and settings stay as they are.
 */
import { readFile } from 'node:fs/promises';
import { NftClient } from '../../nft/index.ts';
import { NetworkSetupError } from '../errors.ts';
import { parsePool } from './endpoint.ts';
import { hasFlushGuard, lowerFlushGuard, raiseFlushGuard } from './flush-guard.ts';
import { recall, remember, withHostNetwork } from './host-dir.ts';
import {
  hostPool,
  readSettings,
  removeSettings,
  SETTINGS_FILE,
  writeSetting,
  writeSettings,
} from './host-settings.ts';
import { lentTaps, makeLentTaps, removeLentTaps, type LendingOptions } from './lent/lent-taps.ts';
import { startLending } from './lent/start.ts';
import { existingTaps, isBridged } from './tap.ts';

const FORWARDING = '/proc/sys/net/ipv4/ip_forward';
/** What forwarding was before us. */
const FORWARDED_BEFORE = 'ip-forward-before';

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** What a host is to have, and what it goes back to. */
interface HostPlan {
  /** Where VMs' addresses are from. */
  readonly pool: string;
  /** What the host's file says without us; undefined: there is none. */
  readonly before: string | undefined;
  /** Another pool that is guarded now. */
  readonly guarded?: string | undefined;
}

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
function needsOf({ pool, before, guarded }: HostPlan): readonly Need[] {
  return [
    {
      ...{ what: 'net.ipv4.ip_forward = 1', undone: 'net.ipv4.ip_forward as it was' },
      ...{ isThere: isForwarding, make: enableForwarding, takeBack: restoreForwarding },
    },
    {
      what: `${SETTINGS_FILE}, for the next boot; VMs' addresses from ${pool}`,
      undone: SETTINGS_FILE,
      isThere: () => isSettled(pool),
      make: () => settle(pool),
      takeBack: () => (before === undefined ? removeSettings() : settle(before)),
    },
    {
      what: 'nftables tables inet and netdev qmp_agent',
      isThere: (o) => new NftClient().hasBase(o),
      make: (o) => new NftClient().ensureBase(o),
      takeBack: removeTables,
    },
    {
      // What keeps VMs shut in where the tables are flushed.
      what: 'IPsec policies that block what no table has passed',
      isThere: async (o) => (await hasFlushGuard(pool, o)) && guarded === undefined,
      make: (o) => moveFlushGuard({ from: guarded, to: pool }, o),
      takeBack: (o) => moveFlushGuard({ from: pool, to: guarded }, o),
    },
  ];
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
  /** Taps that a user who may not make any can borrow, at least so many. Default: as there are. */
  readonly taps?: LendingOptions | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Does what is not done yet. Where any of it fails, what this call did is taken back, and nothing that was there before.
 * @throws ConfigError field `network.pool`; NetworkSetupError VMs have addresses from another pool, or the pool has no
 *   room for so many taps; TimeoutError nobody lends them; HostError ERR_HOST_PERMISSION, ERR_HOST_TOOL;
 *   NetworkRulesError
 */
export async function setUpNetwork({ signal, ...wanted }: SetupOptions = {}): Promise<SetupStep[]> {
  const { taps } = wanted;
  if (wanted.pool !== undefined) parsePool(wanted.pool); // before anything is done
  const o = { signal };
  const begun: Need[] = [];
  const steps = await withHostNetwork(signal, async () => {
    const inForce = await hostPool(); // what somebody else has written there is his to set right
    const before = await readSettings();
    const pool = wanted.pool ?? inForce;
    const isMove = pool !== inForce;
    if (isMove) await checkPoolIsFree({ pool, inForce }, o);
    const guarded = isMove && (await hasFlushGuard(inForce, o)) ? inForce : undefined;
    const needs = [...needsOf({ pool, before, guarded })];
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

/** A VM keeps its address as long as it runs, and what guards it has to know it. @throws NetworkSetupError */
async function checkPoolIsFree(
  { pool, inForce }: { pool: string; inForce: string },
  o: CallOptions,
): Promise<void> {
  const taps = await routedTaps(o);
  if (taps.length === 0) return;
  throw new NetworkSetupError(
    `network.pool cannot become ${pool}: ${taps.length} taps have addresses from ${inForce} (${taps.join(', ')})`,
    {
      hint: `Remove their VMs first, or the taps that users borrow (setup network --undo); or leave network.pool at ${inForce}.`,
    },
  );
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
    const needs = needsOf({ pool: await hostPool(), before: undefined });
    const steps: SetupStep[] = [];
    if (await removeLentTaps(o)) steps.push({ what: 'taps for users', changed: true });
    for (const { what, undone = what, takeBack } of needs.toReversed())
      steps.push({ what: undone, changed: await takeBack(o) });
    return steps;
  });
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

/** Whether the host forwards. */
export async function isForwarding(): Promise<boolean> {
  return (await readFile(FORWARDING, 'utf8').catch(() => '')).trim() === '1';
}

async function enableForwarding(): Promise<boolean> {
  if (await isForwarding()) return false;
  await remember(FORWARDED_BEFORE, '0');
  await writeSetting(FORWARDING, '1');
  return true;
}

/** Left on where it was on before us, or where that is not known any more: others may live by it. */
async function restoreForwarding(): Promise<boolean> {
  if ((await recall(FORWARDED_BEFORE)) !== '0') return false;
  await writeSetting(FORWARDING, '0');
  await remember(FORWARDED_BEFORE, undefined);
  return true;
}

async function isSettled(pool: string): Promise<boolean> {
  return (await readSettings()) === pool;
}

async function settle(pool: string): Promise<boolean> {
  if (await isSettled(pool)) return false;
  await writeSettings(pool);
  return true;
}

async function removeTables(o: CallOptions): Promise<boolean> {
  const nft = new NftClient();
  const had = await nft.hasBase(o);
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
