/** QEMU's side of snapshots: jobs that save, load and delete them in the VM's overlay. */
import type { QmpClient } from '../../qmp/index.ts';
import { QmpJobError } from '../errors.ts';
import { DISK_NODE } from './argv.ts';
import type { RawSnapshot } from './snapshot-notes.ts';
import { explainByQuota, type DiskBounds } from './disk-quota.ts';
import { explainSaveFailure } from './snapshot-space.ts';
import type { WaitOptions } from './wait-options.ts';

/** Bytes per second, past what any disk takes: QEMU's default would make a snapshot last seconds. */
const MAX_BANDWIDTH = 2 ** 40;

/**
 * The node that holds the snapshots, named once for the memory and once for the disk. What is read-only
 * under it has none, and must not be named.
 */
const TARGET = { vmstate: DISK_NODE, devices: [DISK_NODE] };

/** The snapshots in the VM's overlay. */
export async function querySnapshots(client: QmpClient, o: WaitOptions): Promise<RawSnapshot[]> {
  const nodes = await client.execute('query-named-block-nodes', { flat: true }, o);
  return nodes.find((node) => node['node-name'] === DISK_NODE)?.image.snapshots ?? [];
}

/**
 * Saves memory, devices and disk. QEMU stops the vCPUs, drains the disk, and lets them run again where
 * they ran: migration/savevm.c, `save_snapshot`.
 * @param dir where the disk is
 * @throws HostError ERR_HOST_DISK_FULL, DiskQuotaError, QmpError, TimeoutError
 */
export async function saveSnapshot(
  client: QmpClient,
  { tag, dir, disk }: { tag: string; dir: string; disk: DiskBounds },
  o: WaitOptions,
): Promise<void> {
  await client.execute('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH }, o);
  try {
    await client.runJob(
      (jobId) => client.execute('snapshot-save', { 'job-id': jobId, tag, ...TARGET }, o),
      o,
    );
  } catch (error) {
    if (!(error instanceof QmpJobError)) throw error;
    const byQuota = await explainByQuota(disk, error);
    throw byQuota ?? (await explainSaveFailure('snapshot', dir, error));
  }
}

/** Loads a snapshot into stopped vCPUs, which stay stopped. */
export async function loadSnapshot(client: QmpClient, tag: string, o: WaitOptions): Promise<void> {
  await client.runJob(
    (jobId) => client.execute('snapshot-load', { 'job-id': jobId, tag, ...TARGET }, o),
    o,
  );
}

/** Deletes a snapshot. */
export async function deleteSnapshot(
  client: QmpClient,
  tag: string,
  o: WaitOptions,
): Promise<void> {
  const { devices } = TARGET;
  await client.runJob(
    (jobId) => client.execute('snapshot-delete', { 'job-id': jobId, tag, devices }, o),
    o,
  );
}
