/**
 * Making a copy of a machine a machine of its own. What two copies share, and must not: the random
 * generator's state, the clock, the names by which machines are told apart, and keys.
 */
import { execFile } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, unlinkSync } from 'node:fs';
import { promisify } from 'node:util';
import { libc } from './libc.ts';
import { setNetwork } from './network.ts';
import type { RenewSpec } from './protocol.ts';
import { putText } from './put-text.ts';
import { addEntropy, setClock, setHostname } from './system.ts';

const MACHINE_ID = '/etc/machine-id';
/** Where D-Bus looks first; most systems have a link to {@link MACHINE_ID} there. */
const DBUS_MACHINE_ID = '/var/lib/dbus/machine-id';
/** Seeds that systems feed their generator with at the next boot. */
const SEED_FILES = [
  '/var/lib/systemd/random-seed',
  '/var/lib/urandom/random-seed',
  '/var/lib/misc/random-seed',
  '/var/lib/seedrng/seed.credit',
  '/var/lib/seedrng/seed.no-credit',
];
/** The kernel draws it once a boot, and a clone does not boot; so another file is laid over it. */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const OWN_BOOT_ID = '/run/qmp-agent/boot_id';
const SSH_DIR = '/etc/ssh';
const SSH_HOST_KEY = /^ssh_host_.*_key(\.pub)?$/;
/** RSA keys under emulation. */
const KEYGEN_MS = 60_000;
/** All that provisioning has written, on a slow disk. */
const SYNC_MS = 100_000;

const run = promisify(execFile);

/** Becomes another machine; then, and only then, may what execs have started go on. */
export async function renew(spec: RenewSpec): Promise<void> {
  await addEntropy(Buffer.from(spec.entropy, 'base64')); // first: whatever is drawn later is its own
  await setClock(spec.unixMs);
  setHostname(spec.hostname);
  setMachineId(spec.machineId);
  await setBootId(spec.bootId);
  if (spec.network !== undefined) await setNetwork(spec.network);
  for (const file of SEED_FILES) removeFile(file);
  await renewSshHostKeys();
  if (spec.durable) await flushDisks(); // else a cold start is the twin's again
}

/** Writes to the disks what was written to files. */
export async function flushDisks(): Promise<void> {
  await run('sync', [], { timeout: SYNC_MS });
}

function removeFile(path: string): void {
  if (existsSync(path)) unlinkSync(path); // an error that is thrown is dear, and most are not there
}

function setMachineId(id: string): void {
  putText(MACHINE_ID, `${id}\n`);
  if (lstatSync(DBUS_MACHINE_ID, { throwIfNoEntry: false })?.isFile())
    putText(DBUS_MACHINE_ID, `${id}\n`);
}

let isBootIdBound = false;

/** A copy of a copy writes to the file that lies there already. */
async function setBootId(id: string): Promise<void> {
  putText(OWN_BOOT_ID, `${id}\n`, 0o444);
  if (isBootIdBound) return;
  (await libc()).bindMount(OWN_BOOT_ID, BOOT_ID);
  isBootIdBound = true;
}

/** Where the template had any. A daemon that runs takes the new ones up. */
async function renewSshHostKeys(): Promise<void> {
  if (!existsSync(SSH_DIR)) return;
  const keys = readdirSync(SSH_DIR).filter((name) => SSH_HOST_KEY.test(name));
  if (keys.length === 0) return;
  for (const name of keys) removeFile(`${SSH_DIR}/${name}`);
  await run('ssh-keygen', ['-A'], { timeout: KEYGEN_MS });
  await run('pkill', ['-HUP', '-x', '-o', 'sshd']).catch(() => undefined); // none runs
}
