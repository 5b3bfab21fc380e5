/**
 * The state of a machine's devices, without its memory and disk: what a clone goes on from.
 *
 * `xen-save-devices-state` is the one command of QEMU that writes it alone, to a file, in 1–2 ms; nothing
 * in it is Xen's. The way back is an ordinary incoming migration.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { QmpClient } from '../../../qmp/index.ts';
import { QmpProtocolError } from '../../errors.ts';
import type { WaitOptions } from '../api.ts';
import { INHERITED_FD } from '../launcher.ts';
import { explainSaveFailure } from '../snapshot-space.ts';

/** Where a frozen machine is, besides its disk. */
export interface FrozenFiles {
  /** Guest memory, from address 0 of the backend on; holes are zeros. */
  readonly memoryPath: string;
  /** What {@link saveState} wrote. */
  readonly statePath: string;
  /** virtio-serial channels on which a host was connected then. */
  readonly busyChannels?: readonly number[] | undefined;
}

/** From `migrate-incoming` to running vCPUs; some 10 ms where the host is not swapping. */
const LOAD_MS = 30_000;

/**
 * Writes the devices' state; the vCPUs must stand still, and do so afterwards.
 * @throws HostError ERR_HOST_DISK_FULL, QmpError
 */
export async function saveState(client: QmpClient, path: string, o: WaitOptions): Promise<void> {
  await saveBareState(client, path, o);
  await completeState(client, path, o);
}

/** The part of {@link saveState} that needs the vCPUs to stand still. */
export async function saveBareState(
  client: QmpClient,
  path: string,
  o: WaitOptions,
): Promise<void> {
  // `live` would hand the disk over to somebody else.
  const saving = client.execute('xen-save-devices-state', { filename: path, live: false }, o);
  await saving.catch(async (error: unknown) => {
    throw await explainSaveFailure('template', dirname(path), error);
  });
}

/** The other part: makes of what {@link saveBareState} wrote what can be loaded. */
export async function completeState(
  client: QmpClient,
  path: string,
  o: WaitOptions,
): Promise<void> {
  const type = await client.execute('qom-get', { path: '/machine', property: 'type' }, o);
  const machine = String(type).replace(/-machine$/, '');
  await writeFile(path, withConfiguration(await readFile(path), machine));
}

/** Magic and version at the begin of a stream (QEMU, migration/savevm.h). */
const STREAM_HEAD_BYTES = 8;
const STREAM_MAGIC = 'QEVM';
/** `QEMU_VM_CONFIGURATION`: the machine's name, to be compared with that of who loads. */
const CONFIGURATION_SECTION = 7;
/** `QEMU_VM_VMDESCRIPTION` of no bytes, behind the end. */
const NO_DESCRIPTION = Buffer.from([6, 0, 0, 0, 0]);

/**
 * Adds the sections that an incoming migration expects, and that `xen-save-devices-state` leaves out: one
 * behind the head (to have it not expected, by `migration.send-configuration=off`, would make any
 * `snapshot-save` abort QEMU 8 and later), and one at the end, without which QEMU complains, and its
 * complaint would be the last that is heard of it if it dies one day. Pure.
 * @throws QmpProtocolError no stream of a VM
 */
export function withConfiguration(stream: Buffer, machine: string): Buffer {
  if (stream.toString('latin1', 0, STREAM_MAGIC.length) !== STREAM_MAGIC) {
    throw new QmpProtocolError('QEMU wrote no state of devices', {
      hint: 'This QEMU cannot be frozen; use 7.2 or later of the distribution.',
    });
  }
  if (stream[STREAM_HEAD_BYTES] === CONFIGURATION_SECTION) return stream;
  const name = Buffer.from(machine, 'latin1');
  const section = Buffer.alloc(5);
  section.writeUInt8(CONFIGURATION_SECTION);
  section.writeUInt32BE(name.length, 1);
  const head = stream.subarray(0, STREAM_HEAD_BYTES);
  const rest = stream.subarray(STREAM_HEAD_BYTES);
  return Buffer.concat([head, section, name, rest, NO_DESCRIPTION]);
}

/**
 * Loads the state that QEMU inherited as a descriptor, and waits until the vCPUs run; with `hold` until
 * all is loaded, and they stand still. A state that does not fit ends QEMU.
 */
export async function loadState(
  client: QmpClient,
  signal: AbortSignal,
  { hold = false }: { hold?: boolean | undefined } = {},
): Promise<void> {
  if (hold) await holdIncoming(client, signal);
  const o = { signal, timeoutMs: LOAD_MS };
  const isLoaded = ({ data }: { data: { status: string } }) => data.status === 'completed';
  const loaded = hold
    ? client.waitForEvent('MIGRATION', { match: isLoaded, ...o })
    : client.waitForEvent('RESUME', o);
  loaded.catch(() => undefined); // where the command fails, that is what counts
  await client.execute('migrate-incoming', { uri: `fd:${INHERITED_FD}` }, { signal });
  await loaded;
}

/** As long as nothing has come in, `stop` means: do not run by yourself afterwards (QEMU, `qmp_stop`). */
async function holdIncoming(client: QmpClient, signal: AbortSignal): Promise<void> {
  await client.execute('stop', {}, { signal });
  const capabilities = [{ capability: 'events' as const, state: true }];
  await client.execute('migrate-set-capabilities', { capabilities }, { signal });
}
