/**
 * The one place that runs tcpdump: what it captures comes to us as a pcap stream, each packet at once, and it dies
 * with us.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';

/** tcpdump while it runs: packets on stdout, words on stderr. */
export type Tcpdump = ChildProcessByStdio<null, Readable, Readable>;

/** What it captures. */
export interface TcpdumpOptions {
  /** An interface, or `nflog:GROUP`. */
  readonly device: string;
  /** Bytes that are taken of a packet at most. Default: tcpdump's, 262 144. */
  readonly snaplen?: number | undefined;
  /** What the kernel keeps while we are busy, KiB. Default: tcpdump's, 2 048. */
  readonly bufferKib?: number | undefined;
}

/**
 * Its words. Pure.
 *
 * - `-Z root`: to become another user would take the death signal away; and as it writes packets down, it looks into none.
 * - `-p`: a tap hands the kernel all that its guest sends, whoever it is for; so nobody has to be promiscuous.
 * - `--immediate-mode`: else the kernel hands packets out by the block, up to a second late, and the last block of a
 *   tap that goes never.
 */
export function tcpdumpArgv({ device, snaplen, bufferKib }: TcpdumpOptions): string[] {
  return [
    ...['tcpdump', '-i', device, '-p', '-Z', 'root', '-n', '-U', '--immediate-mode'],
    ...(snaplen === undefined ? [] : ['-s', String(snaplen)]),
    ...(bufferKib === undefined ? [] : ['-B', String(bufferKib)]),
    ...['-w', '-'],
  ];
}

/** Starts it. It is in a session of its own, so that a Ctrl-C at the terminal is ours to hear, and not its end. */
export function startTcpdump(o: TcpdumpOptions): Tcpdump {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...tcpdumpArgv(o)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
    detached: true,
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C' },
  });
}

/**
 * Whether it may have taken something from the kernel that it has not written yet: it runs, or would if it were let. One that
 * sleeps (proc_pid_stat(5), field 3) waits for the kernel, or for us where we have not read what it wrote.
 */
export async function isAtWork({ pid }: Tcpdump): Promise<boolean> {
  const stat = await readFile(`/proc/${pid ?? 0}/stat`, 'latin1').catch(() => '');
  return /^\d+ \(.*\) [RDTt] /.test(stat);
}
