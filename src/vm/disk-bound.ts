/**
 * The layer that keeps a disk's file within its quota: raw, of a fixed size, over the file.
 *
 * The file is always {@link RESERVE_BYTES} longer than the bound, by a hole. That is how the bound is
 * known to whoever starts the VM next, and room to raise it while QEMU runs, which looks at a file's length
 * once: for a larger quota, and to delete a snapshot (QEMU writes the list of the others to new clusters
 * before it gives any back, and a full disk has none).
 */
import { stat, truncate } from 'node:fs/promises';
import type { QmpClient } from '../../qmp/index.ts';
import { formatBytes } from '../config/units.ts';
import { ConfigError, QmpCommandError } from '../errors.ts';
import { extendTo, usedBytes } from '../storage/index.ts';
import { BOUND_NODE, DISK_FILE_NODE } from './argv.ts';
import type { DiskBounds, DiskLayers } from './disk-quota.ts';
import type { WaitOptions } from './wait-options.ts';

const RESERVE_BYTES = 64 * 2 ** 30;
/** Two clusters: the list of some thousand snapshots. */
const LENT_BYTES = 128 * 1024;
/** What is left of a disk that may be full: a file's blocks and qcow2's clusters are not quite the same. */
const NEARLY_FULL_BYTES = 16 * 2 ** 20;

/** A disk with a quota. */
type Bounded = DiskLayers & { readonly quotaBytes: number };

/**
 * Prepares a disk's file for QEMU's start.
 * @returns the bound; undefined where there is no quota
 * @throws StateDirError, HostError ERR_HOST_DISK_FULL
 */
export async function prepareBound({ path, quotaBytes }: DiskBounds): Promise<number | undefined> {
  return quotaBytes === undefined ? undefined : lengthen(path, quotaBytes);
}

/** Makes a disk's file long enough for a quota, where it is not. @returns the bound that follows */
async function lengthen(path: string, quotaBytes: number): Promise<number> {
  await extendTo(path, quotaBytes + RESERVE_BYTES);
  return (await stat(path)).size - RESERVE_BYTES;
}

/**
 * Lets a disk that is full, or nearly, grow a little past its quota, for what the host does with it; as
 * often as the reserve allows. The guest's writes are not what asks for it.
 */
export async function lendRoom(
  client: QmpClient,
  { path, quotaBytes, noFlush }: DiskLayers,
  o: WaitOptions,
): Promise<void> {
  if (quotaBytes === undefined) return;
  const { size } = await stat(path);
  const { status } = await client.execute('query-status', {}, o);
  const left = size - RESERVE_BYTES - (await usedBytes(path));
  if (status !== 'io-error' && left > NEARLY_FULL_BYTES) return;
  await truncate(path, size + LENT_BYTES); // first: who starts the VM next must not set a lower bound
  await setBound(client, { bytes: size - RESERVE_BYTES + LENT_BYTES, noFlush }, o);
}

/**
 * Has QEMU let a disk grow to a larger quota.
 * @throws ConfigError it is beyond what QEMU knows of the file
 */
export async function raiseBound(client: QmpClient, disk: Bounded, o: WaitOptions): Promise<void> {
  await requireSeen(client, disk, o);
  const { size } = await stat(disk.path);
  const bytes = await lengthen(disk.path, disk.quotaBytes);
  try {
    await setBound(client, { bytes, noFlush: disk.noFlush }, o);
  } catch (error) {
    // Only where QEMU has refused: of one that does not answer nobody knows, and it may write up to the new
    // bound. The file stays longer then, as whoever starts the VM next must not set a lower one.
    if (error instanceof QmpCommandError) await truncate(disk.path, size).catch(() => undefined);
    throw error;
  }
}

/** @throws ConfigError */
async function requireSeen(
  client: QmpClient,
  { vmId, quotaBytes }: Bounded,
  o: WaitOptions,
): Promise<void> {
  const nodes = await client.execute('query-named-block-nodes', { flat: true }, o);
  const file = nodes.find((node) => node['node-name'] === DISK_FILE_NODE);
  const seenBytes = file?.image['virtual-size'] ?? 0;
  if (quotaBytes <= seenBytes) return;
  throw new ConfigError(
    `the disk quota of VM ${vmId} can be raised to ${formatBytes(seenBytes)} at most while it runs`,
    {
      vmId,
      field: 'vm.diskQuotaMib',
      value: quotaBytes / 2 ** 20,
      hint: `Stop the VM first (\`qmp-agent stop ${vmId}\`), or ask for less.`,
    },
  );
}

async function setBound(
  client: QmpClient,
  { bytes, noFlush }: { bytes: number; noFlush: boolean },
  o: WaitOptions,
): Promise<void> {
  const bound = {
    ...({ driver: 'raw', 'node-name': BOUND_NODE, file: DISK_FILE_NODE } as const),
    ...({ size: bytes, discard: 'unmap' } as const),
    cache: { 'no-flush': noFlush },
  };
  await client.execute('blockdev-reopen', { options: [bound] }, o);
}
