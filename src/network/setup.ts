/**
 * Makes a host forward for its VMs, and takes that back. Nothing else of the host is touched: rules of
 * others, their tables and settings stay as they are.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { NftClient } from '../../nft/index.ts';
import { HostError, NetworkSetupError } from '../errors.ts';
import { hasFlushGuard, lowerFlushGuard, raiseFlushGuard } from './flush-guard.ts';
import { recall, remember, withHostNetwork } from './host-dir.ts';
import { existingTaps, isBridged } from './tap.ts';

const FORWARDING = '/proc/sys/net/ipv4/ip_forward';
/** Read at boot: sysctl.d(5). */
const SYSCTL_FILE = '/etc/sysctl.d/60-qmp-agent.conf';
const SYSCTL_TEXT = `# Written by \`qmp-agent setup network\`, taken away by \`qmp-agent setup network --undo\`.
net.ipv4.ip_forward = 1
`;
/** What forwarding was before us. */
const FORWARDED_BEFORE = 'ip-forward-before';

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
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
}

/** In the order in which they are made. */
const NEEDS: readonly Need[] = [
  {
    ...{ what: 'net.ipv4.ip_forward = 1', undone: 'net.ipv4.ip_forward as it was' },
    ...{ isThere: isForwarding, make: enableForwarding, takeBack: restoreForwarding },
  },
  {
    ...{ what: `${SYSCTL_FILE}, for the next boot`, undone: SYSCTL_FILE },
    ...{ isThere: hasSysctlFile, make: writeSysctlFile, takeBack: removeSysctlFile },
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
    isThere: hasFlushGuard,
    make: async (o) => !(await hasFlushGuard(o)) && (await raiseFlushGuard(o)),
    takeBack: removeFlushGuard,
  },
];

/** One thing that was done, or need not be. */
export interface SetupStep {
  readonly what: string;
  readonly changed: boolean;
}

/**
 * Does what is not done yet. Where any of it fails, what this call did is taken back, and nothing that was there before.
 * @throws HostError ERR_HOST_PERMISSION, ERR_HOST_TOOL; NetworkRulesError
 */
export async function setUpNetwork(o: CallOptions = {}): Promise<SetupStep[]> {
  return withHostNetwork(o.signal, async () => {
    const steps: SetupStep[] = [];
    const begun: Need[] = [];
    try {
      for (const need of NEEDS) {
        if (!(await need.isThere(o))) begun.unshift(need);
        steps.push({ what: need.what, changed: await need.make(o) });
      }
      return steps;
    } catch (error) {
      for (const need of begun) await takeBackMade(need).catch(() => undefined); // the error is what counts
      throw error;
    }
  });
}

/** VMs that are there meanwhile need what is there of tables. */
async function takeBackMade({ takeBack }: Need): Promise<void> {
  if (takeBack !== removeTables || (await routedTaps({})).length === 0) await takeBack({});
}

/**
 * Undoes what {@link setUpNetwork} did.
 * @throws NetworkSetupError VMs still use it
 */
export async function undoNetworkSetup(o: CallOptions = {}): Promise<SetupStep[]> {
  return withHostNetwork(o.signal, async () => {
    const taps = await routedTaps(o);
    if (taps.length > 0) {
      throw new NetworkSetupError(`${taps.length} VMs have taps: ${taps.join(', ')}`, {
        hint: 'Remove them first (`qmp-agent list`, `qmp-agent remove --force`), then what is left (`qmp-agent gc`).',
      });
    }
    const steps: SetupStep[] = [];
    for (const { what, undone = what, takeBack } of NEEDS.toReversed())
      steps.push({ what: undone, changed: await takeBack(o) });
    return steps;
  });
}

/** Taps of VMs that the host forwards for. */
async function routedTaps(o: CallOptions): Promise<string[]> {
  const taps = (await existingTaps(o)).map(({ tap }) => tap);
  return taps.filter((tap) => !isBridged(tap));
}

/** Whether {@link setUpNetwork} was done and still holds: where others forward, nobody has asked for it. */
export async function isSetUp(): Promise<boolean> {
  return (await hasSysctlFile()) && (await isForwarding());
}

/** Whether the host forwards. */
export async function isForwarding(): Promise<boolean> {
  return (await readFile(FORWARDING, 'utf8').catch(() => '')).trim() === '1';
}

async function enableForwarding(): Promise<boolean> {
  if (await isForwarding()) return false;
  await remember(FORWARDED_BEFORE, '0');
  await write(FORWARDING, '1');
  return true;
}

/** Left on where it was on before us, or where that is not known any more: others may live by it. */
async function restoreForwarding(): Promise<boolean> {
  if ((await recall(FORWARDED_BEFORE)) !== '0') return false;
  await write(FORWARDING, '0');
  await remember(FORWARDED_BEFORE, undefined);
  return true;
}

async function hasSysctlFile(): Promise<boolean> {
  return (await readFile(SYSCTL_FILE, 'utf8').catch(() => '')) === SYSCTL_TEXT;
}

async function writeSysctlFile(): Promise<boolean> {
  if (await hasSysctlFile()) return false;
  await write(SYSCTL_FILE, SYSCTL_TEXT);
  return true;
}

async function removeSysctlFile(): Promise<boolean> {
  if (!(await hasSysctlFile())) return false;
  await rm(SYSCTL_FILE, { force: true });
  return true;
}

async function removeTables(o: CallOptions): Promise<boolean> {
  const nft = new NftClient();
  const had = await nft.hasBase(o);
  await nft.removeBase(o);
  return had;
}

async function removeFlushGuard(o: CallOptions): Promise<boolean> {
  const had = await hasFlushGuard(o);
  await lowerFlushGuard(o);
  return had;
}

async function write(path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((error: unknown) => {
    throw new HostError(
      'ERR_HOST_PERMISSION',
      `${path} cannot be written: ${(error as Error).message}`,
      {
        hint: 'Run as root: sudo qmp-agent setup network.',
        cause: error,
      },
    );
  });
}
