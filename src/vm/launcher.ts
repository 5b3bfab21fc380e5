/**
 * The one place that runs QEMU.
 *
 * The chain `sh` → `setpriv` → QEMU is one process throughout (each execs the next, some 1 ms each).
 * `sh` sets the file size limit that bounds the logs, and has SIGXFSZ ignored, which exec hands on
 * and QEMU does not change: a write past the limit then fails with EFBIG instead of killing it.
 * `setpriv` asks the kernel for SIGKILL when its parent dies. That parent is the *thread* that
 * started it (prctl(2), PR_SET_PDEATHSIG): create ephemeral VMs in the main thread.
 */
import { readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { HostError, LaunchError } from '../errors.ts';
import { findProgram } from '../host-files.ts';
import { FILE_LIMIT_BYTES } from './bounded-log.ts';
import { bestAio, type DiskAio } from './disk-aio.ts';
import { identify, isAlive, signalProcess, type ProcessIdentity } from './process-identity.ts';

/** How a process ended, as far as it is known. */
export interface ProcessExit {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
}

/** A QEMU that runs: our child, or one that another process started. */
export interface QemuProcess {
  readonly identity: ProcessIdentity;
  /** Resolves once it is gone; never rejects. */
  readonly exited: Promise<ProcessExit>;
  /** @returns whether it was there to be signalled */
  kill(signal: NodeJS.Signals): boolean;
  /** Ends the watch over it; it runs on. */
  release(): void;
}

/** Number of {@link LaunchOptions.inheritedPath} in QEMU: the first after stdio. */
export const INHERITED_FD = 3;
/** `ulimit -f` counts in these: POSIX. */
const ULIMIT_BLOCK_BYTES = 512;
const PRELUDE = `exec >>"$1" 2>&1; [ -z "$2" ] || exec ${INHERITED_FD}<"$2"; shift 2; trap '' XFSZ; ulimit -f ${FILE_LIMIT_BYTES / ULIMIT_BLOCK_BYTES} && exec "$@"`;
/** Between two looks at a process that is not our child. */
const WATCH_MS = 100;
/** Oldest QEMU that is supported, and tested. */
const MINIMUM_VERSION = [7, 2] as const;
/** `--version` takes 14 ms on an idle machine. */
const VERSION_TIMEOUT_MS = 10_000;
/** Of what a program says that is no QEMU. */
const SHOWN_CHARS = 500;

/** What {@link launchQemu} runs. */
export interface LaunchOptions {
  readonly vmId: string;
  readonly program: string;
  readonly argv: readonly string[];
  /** A {@link BoundedLog} that was ensured; gets stdout and stderr. */
  readonly logPath: string;
  /** Own session, survives us; else it dies with this process. */
  readonly detached: boolean;
  /** A file that QEMU finds open for reading as descriptor {@link INHERITED_FD}. */
  readonly inheritedPath?: string | undefined;
}

/**
 * Starts QEMU. Returns as soon as the process exists; whether it stays is for the caller to watch.
 * @throws HostError ERR_HOST_TOOL `sh` or `setpriv` is missing
 */
export async function launchQemu(o: LaunchOptions): Promise<QemuProcess> {
  const bound = o.detached ? [] : ['setpriv', '--pdeathsig', 'KILL', '--'];
  const words = [
    '-c',
    PRELUDE,
    'qmp-agent',
    o.logPath,
    o.inheritedPath ?? '',
    ...bound,
    o.program,
    ...o.argv,
  ];
  const child = execa('/bin/sh', words, {
    stdio: 'ignore', // the shell opens the log, for appending
    reject: false,
    detached: o.detached,
    cleanup: false, // the kernel sees to it, by SIGKILL too
    env: LAUNCH_ENVIRONMENT,
    extendEnv: false,
    cwd: '/',
  });
  const exited = child.then((result): ProcessExit => ({
    exitCode: result.exitCode,
    signal: result.signal,
  }));
  const identity = child.pid === undefined ? undefined : identify(child.pid);
  if (child.pid === undefined || identity === undefined) {
    const end = await exited;
    throw new LaunchError(`QEMU could not be started`, {
      vmId: o.vmId,
      ...end,
      argv: [o.program, ...o.argv],
      stderr: '',
      hint: 'Check that /bin/sh runs and that no limit on processes is in the way (ulimit -u, pids.max).',
    });
  }
  if (o.detached) child.unref();
  return {
    identity,
    exited,
    kill: (signal) => child.exitCode === null && child.signalCode === null && child.kill(signal),
    release: () => {
      child.unref();
    },
  };
}

/** QEMU gets nothing of ours: no secret of the environment reaches its process or its modules. */
const LAUNCH_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin',
  LC_ALL: 'C',
};

/** Watches over a QEMU that another process started. */
export function adoptQemu(identity: ProcessIdentity): QemuProcess {
  let timer: NodeJS.Timeout | undefined;
  const exited = new Promise<ProcessExit>((resolve) => {
    timer = setInterval(() => {
      if (isAlive(identity)) return;
      clearInterval(timer);
      resolve({});
    }, WATCH_MS).unref();
  });
  return {
    identity,
    exited,
    kill: (signal) => signalProcess(identity, signal),
    release: () => {
      clearInterval(timer);
    },
  };
}

/** A QEMU that fits. */
export interface QemuProgram {
  readonly path: string;
  readonly version: string;
  readonly aio: DiskAio;
}

const found = new Map<string, Promise<QemuProgram>>();

/**
 * Finds QEMU and checks its version; once a process for each name.
 * @throws HostError ERR_HOST_QEMU missing, not runnable, or older than 7.2
 */
export function findQemu(name: string): Promise<QemuProgram> {
  let program = found.get(name);
  if (program === undefined) {
    program = probeQemu(name);
    found.set(name, program);
    program.catch(() => found.delete(name)); // it may be installed meanwhile
  }
  return program;
}

/** It could use io_uring once, and cannot now: a limit, or a setting of the host that has changed. For this process. */
export async function giveUpIoUring(name: string): Promise<void> {
  const program = await findQemu(name);
  found.set(name, Promise.resolve({ ...program, aio: 'threads' }));
}

async function probeQemu(name: string): Promise<QemuProgram> {
  const install = 'Install QEMU 7.2 or newer: `apt install qemu-system-x86`.';
  const path = name.includes('/') ? name : await findProgram(name);
  if (path === undefined) {
    throw new HostError('ERR_HOST_QEMU', `${name} is not in PATH`, { hint: install });
  }
  const [{ stdout, stderr, failed, shortMessage }, aio] = await Promise.all([
    execa(path, ['--version'], { reject: false, timeout: VERSION_TIMEOUT_MS, stdin: 'ignore' }),
    bestAio(path),
  ]);
  const version = parseVersion(stdout);
  if (failed || version === undefined) {
    // Its own words first: a missing library, say. Where it did not even start: what execa says.
    const why = [failed ? stderr : stdout, shortMessage].find(Boolean) ?? 'no answer';
    throw new HostError('ERR_HOST_QEMU', `${path} --version: ${why.slice(0, SHOWN_CHARS)}`, {
      hint: install,
    });
  }
  if (!isSupported(version)) {
    throw new HostError(
      'ERR_HOST_QEMU',
      `${path} is QEMU ${version}; 7.2 is the oldest supported`,
      {
        hint: install,
      },
    );
  }
  return { path, version, aio };
}

/** `7.2.22` from `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`. */
export function parseVersion(text: string): string | undefined {
  return /\bversion (\d+\.\d+(?:\.\d+)?)/.exec(text)?.[1];
}

/** Whether this version is {@link MINIMUM_VERSION} or later. */
export function isSupported(version: string): boolean {
  return isAtLeast(version, MINIMUM_VERSION);
}

/** Whether a version is this one or later. */
export function isAtLeast(
  version: string,
  [minMajor, minMinor]: readonly [major: number, minor: number],
): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > minMajor || (major === minMajor && minor >= minMinor);
}

/** argv of a process that runs, for `inspect`. */
export async function readArgv(pid: number): Promise<string[] | undefined> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return text === '' ? undefined : text.split('\0').slice(0, -1);
}
