/** What the host may ask of the guest's system, besides execs. */
import { closeSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { renewExecIds } from './exec-ids.ts';
import { libc } from './libc.ts';
import { PROTOCOL_VERSION, type GuestStatus, type PingReply } from './protocol.ts';
import { putText } from './put-text.ts';
import { RequestError } from './request-error.ts';
import { AGENT_VERSION } from './version.ts';

/** The init takes it as a request to power off, as busybox's does. */
const POWEROFF_SIGNAL = 'SIGUSR2';

/** @param bootId where it is known */
export function pingReply(bootId = readBootId()): PingReply {
  return {
    agentVersion: AGENT_VERSION,
    protocol: PROTOCOL_VERSION,
    node: process.versions.node,
    bootId,
  };
}

function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

export async function status(execs: number): Promise<GuestStatus> {
  const disk = await statfs('/');
  const meminfo = readFileSync('/proc/meminfo', 'latin1');
  const kib = (name: string) =>
    Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(meminfo)?.[1] ?? 0);
  const load = readFileSync('/proc/loadavg', 'latin1').split(' ');
  return {
    uptimeSeconds: Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]),
    memory: { totalBytes: kib('MemTotal') * 1024, availableBytes: kib('MemAvailable') * 1024 },
    load: [Number(load[0]), Number(load[1]), Number(load[2])],
    processes: readdirSync('/proc').filter((name) => /^\d+$/.test(name)).length,
    disk: { totalBytes: disk.blocks * disk.bsize, availableBytes: disk.bavail * disk.bsize },
    agentRssBytes: process.memoryUsage.rss(),
    execs,
    unixMs: Date.now(),
  };
}

/** Sets the wall clock; gives the step it made, ms. */
export async function setClock(unixMs: number): Promise<number> {
  const { setClock: set } = await libc();
  const before = Date.now();
  set(unixMs);
  return unixMs - before;
}

/** Feeds the kernel's generator and reseeds it, so that a clone does not draw its twin's numbers. */
export async function addEntropy(bytes: Uint8Array): Promise<void> {
  const { addEntropy: add } = await libc();
  const fd = openSync('/dev/urandom', 'w');
  try {
    add(fd, bytes);
    renewExecIds();
  } finally {
    closeSync(fd);
  }
}

/** RFC 1123, one label or several. */
export const HOSTNAME =
  /^(?=.{1,64}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** Sets the hostname, now and in the files that name it. */
export function setHostname(hostname: unknown): void {
  if (typeof hostname !== 'string' || !HOSTNAME.test(hostname)) {
    throw new RequestError('EINVAL', 'not a hostname');
  }
  writeFileSync('/proc/sys/kernel/hostname', hostname);
  putText('/etc/hostname', `${hostname}\n`);
  let hosts = '';
  try {
    hosts = readFileSync('/etc/hosts', 'utf8');
  } catch {
    // an image without one gets one
  }
  const others = hosts.split('\n').filter((line) => line !== '' && !line.startsWith('127.0.1.1'));
  putText('/etc/hosts', [...others, `127.0.1.1\t${hostname}`, ''].join('\n'));
}

/** Asks the init to power the guest off. */
export function poweroff(): void {
  process.kill(1, POWEROFF_SIGNAL);
}
