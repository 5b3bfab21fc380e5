/** QEMU's side of snapshots: jobs that save, load and delete them in the VM's overlay. */
import type { QmpClient } from '../../qmp/index.ts';
import { HostError, QmpJobError } from '../errors.ts';
import { DISK_NODE } from './argv.ts';
import type { RawSnapshot } from './snapshot-notes.ts';
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
 */
export async function saveSnapshot(client: QmpClient, tag: string, o: WaitOptions): Promise<void> {
  await client.execute('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH }, o);
  await run(client, o, (jobId) =>
    client.execute('snapshot-save', { 'job-id': jobId, tag, ...TARGET }, o),
  );
}

/** Loads a snapshot into stopped vCPUs, which stay stopped. */
export async function loadSnapshot(client: QmpClient, tag: string, o: WaitOptions): Promise<void> {
  await run(client, o, (jobId) =>
    client.execute('snapshot-load', { 'job-id': jobId, tag, ...TARGET }, o),
  );
}

/** Deletes a snapshot. */
export async function deleteSnapshot(
  client: QmpClient,
  tag: string,
  o: WaitOptions,
): Promise<void> {
  const { devices } = TARGET;
  await run(client, o, (jobId) =>
    client.execute('snapshot-delete', { 'job-id': jobId, tag, devices }, o),
  );
}

/** @throws HostError ERR_HOST_DISK_FULL where that is what the job says */
async function run(
  client: QmpClient,
  o: WaitOptions,
  start: (jobId: string) => Promise<unknown>,
): Promise<void> {
  try {
    await client.runJob(start, o);
  } catch (error) {
    if (!(error instanceof QmpJobError) || !isDiskFull(error.message)) throw error;
    throw noSpace('the host’s disk is full', error);
  }
}

/** QEMU names the errno by its text, or by its number where it comes from deep below. */
export function isDiskFull(text: string): boolean {
  return /No space left on device|Disk quota exceeded|[Ee]rror -(28|122)\b/.test(text);
}

/** There is no space for a snapshot. */
export function noSpace(why: string, cause?: unknown): HostError {
  return new HostError('ERR_HOST_DISK_FULL', `the snapshot cannot be saved: ${why}`, {
    hint: 'Free space where the VM’s disk is, or delete snapshots you no longer need.',
    cause,
  });
}
