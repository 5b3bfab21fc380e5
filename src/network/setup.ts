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

/** What keeps VMs shut in where the tables are flushed. */
const FLUSH_GUARD = 'IPsec policies that block what no table has passed';

/** One thing that was done, or need not be. */
export interface SetupStep {
  readonly what: string;
  readonly changed: boolean;
}

/**
 * Does what is not done yet.
 * @throws HostError ERR_HOST_PERMISSION, ERR_HOST_TOOL; NetworkRulesError
 */
export async function setUpNetwork(
  o: { signal?: AbortSignal | undefined } = {},
): Promise<SetupStep[]> {
  return withHostNetwork(o.signal, async () => [
    { what: 'net.ipv4.ip_forward = 1', changed: await enableForwarding() },
    { what: `${SYSCTL_FILE}, for the next boot`, changed: await writeSysctlFile() },
    {
      what: 'nftables tables inet and netdev qmp_agent',
      changed: await new NftClient().ensureBase(o),
    },
    { what: FLUSH_GUARD, changed: !(await hasFlushGuard(o)) && (await raiseFlushGuard(o)) },
  ]);
}

/**
 * Undoes what {@link setUpNetwork} did.
 * @throws NetworkSetupError VMs still use it
 */
export async function undoNetworkSetup(
  o: { signal?: AbortSignal | undefined } = {},
): Promise<SetupStep[]> {
  return withHostNetwork(o.signal, async () => {
    const taps = (await existingTaps(o)).filter(({ tap }) => !isBridged(tap));
    if (taps.length > 0) {
      throw new NetworkSetupError(
        `${taps.length} VMs have taps: ${taps.map(({ tap }) => tap).join(', ')}`,
        {
          hint: 'Remove them first (`qmp-agent list`, `qmp-agent remove --force`), then what is left (`qmp-agent gc`).',
        },
      );
    }
    const nft = new NftClient();
    const had = await nft.hasBase(o);
    await nft.removeBase(o);
    const hadGuard = await hasFlushGuard(o);
    await lowerFlushGuard(o);
    return [
      { what: FLUSH_GUARD, changed: hadGuard },
      { what: 'nftables tables inet and netdev qmp_agent', changed: had },
      { what: SYSCTL_FILE, changed: await removeSysctlFile() },
      { what: 'net.ipv4.ip_forward as it was', changed: await restoreForwarding() },
    ];
  });
}

/** Whether {@link setUpNetwork} was done and still holds: where others forward, nobody has asked for it. */
export async function isSetUp(): Promise<boolean> {
  const text = await readFile(SYSCTL_FILE, 'utf8').catch(() => '');
  return text === SYSCTL_TEXT && (await isForwarding());
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

async function writeSysctlFile(): Promise<boolean> {
  if ((await readFile(SYSCTL_FILE, 'utf8').catch(() => '')) === SYSCTL_TEXT) return false;
  await write(SYSCTL_FILE, SYSCTL_TEXT);
  return true;
}

async function removeSysctlFile(): Promise<boolean> {
  if ((await readFile(SYSCTL_FILE, 'utf8').catch(() => '')) !== SYSCTL_TEXT) return false;
  await rm(SYSCTL_FILE, { force: true });
  return true;
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
