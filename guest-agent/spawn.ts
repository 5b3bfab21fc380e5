/** Starts the first process of an exec. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, resolve } from 'node:path';
import { execEnvironment } from './environment.ts';
import type { ProcessTree } from './process-tree.ts';
import type { ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import type { Attached, Stdio } from './stdio.ts';
import { lookUpUser, readCached, type GuestUser } from './users.ts';

/** A process that runs, and its ends of the pipes. */
export interface Spawned extends Attached {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly tree: ProcessTree;
}

/** What an exec's specification comes to in this guest, now. */
export interface ExecPlan {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly user: GuestUser;
  readonly cwd: string;
  readonly stdin: boolean;
  /** As the list shows it. */
  readonly command: readonly string[];
}

/** util-linux; only needed for users with supplementary groups, which libuv drops. */
const SETPRIV = '/usr/bin/setpriv';

/** @throws RequestError `EUSER` */
export function planExec(spec: ExecSpec): ExecPlan {
  const user = lookUpUser(spec.user);
  return {
    argv: spec.argv ?? shellArgv(spec.shell ?? ''),
    env: execEnvironment(user, spec.env),
    user,
    cwd: workingDirectory(spec.cwd, user),
    stdin: spec.stdin === true,
    command: spec.argv ?? [spec.shell ?? ''],
  };
}

/** What to give to `spawn` for a program to run as the plan's user. @throws RequestError `EUSER` */
export function startOptions(
  { user }: ExecPlan,
  argv: readonly string[],
): { file: string; args: string[]; options: { uid?: number; gid?: number } } {
  const identity = identityOptions(user);
  const [file = '', ...args] = identity.wrap ? [...identity.wrap, ...argv] : argv;
  return { file, args, options: identity.options };
}

/**
 * Starts the process as its user, in a session of its own, and puts it into its tree.
 * @param takeStdio called once the plan is known to make sense
 * @throws RequestError `ENOENT`, `EACCES`, `E2BIG`, `EUSER`, …
 */
export async function spawnExec(
  plan: ExecPlan,
  tree: ProcessTree,
  takeStdio: () => Promise<Stdio>,
): Promise<Spawned> {
  const { argv, cwd } = plan;
  const env = { ...plan.env, ...tree.mark };
  const isWrapped = identityOptions(plan.user).wrap !== undefined;
  // setpriv would hide whether the program exists behind its own exit code.
  const found = isWrapped ? [findProgram(argv, env['PATH'], cwd), ...argv.slice(1)] : argv;
  const { file, args, options } = startOptions(plan, found);
  const stdio = await takeStdio();
  let child: ChildProcess;
  try {
    stdio.giveTo(plan.user);
    child = spawn(file, args, {
      cwd,
      env,
      detached: true, // setsid: a process group of its own, and no controlling terminal
      stdio: stdio.options,
      ...options,
    });
    if (child.pid !== undefined) tree.adopt(child.pid);
  } catch (error) {
    stdio.abandon();
    throw spawnFailure(error as NodeJS.ErrnoException, argv[0] ?? '', cwd);
  }
  if (child.pid === undefined) {
    stdio.abandon();
    const [error] = (await once(child, 'error').catch((e: unknown) => [e])) as [
      NodeJS.ErrnoException,
    ];
    throw spawnFailure(error, argv[0] ?? '', cwd);
  }
  child.on('error', () => undefined); // a later kill that fails; the exit tells what matters
  return { child, pid: child.pid, tree, ...stdio.attach(child) };
}

function shellArgv(line: string): string[] {
  return existsSync('/bin/bash') ? ['/bin/bash', '-lc', line] : ['/bin/sh', '-c', line];
}

/** Where an exec that names no directory starts: where the image says, else at home. */
const WORKDIR_FILE = '/etc/qmp-agent/workdir';

function workingDirectory(cwd: string | undefined, user: GuestUser): string {
  if (cwd !== undefined) return resolve(user.home, cwd);
  const candidates = [readCached(WORKDIR_FILE).trim(), user.home];
  const isDirectory = (path: string): boolean =>
    path !== '' && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return candidates.find(isDirectory) ?? '/';
}

function identityOptions(user: GuestUser): {
  options: { uid?: number; gid?: number };
  wrap?: string[];
} {
  const self = process.getuid?.() ?? 0;
  if (user.uid === self) return { options: {} };
  if (self !== 0)
    throw new RequestError('EUSER', `the agent runs as uid ${self} and cannot become ${user.name}`);
  if (user.groups.length > 0 && existsSync(SETPRIV)) {
    const groups = user.groups.join(',');
    return {
      options: {},
      wrap: [SETPRIV, `--reuid=${user.uid}`, `--regid=${user.gid}`, `--groups=${groups}`, '--'],
    };
  }
  return { options: { uid: user.uid, gid: user.gid } };
}

/**
 * Where the program of a command is, as execvp(3) looks for it.
 * @throws RequestError `ENOENT`, `EACCES`
 */
export function findProgram(
  [name = '']: readonly string[],
  path: string | undefined,
  cwd: string,
): string {
  const candidates = name.includes('/')
    ? [resolve(cwd, name)]
    : (path ?? '').split(delimiter).map((dir) => resolve(cwd, dir, name));
  let code = 'ENOENT';
  for (const candidate of candidates) {
    try {
      const stat = statSync(candidate, { throwIfNoEntry: false }); // most have none, and to throw is slow
      if (stat === undefined) continue;
      code = 'EACCES';
      accessSync(candidate, constants.X_OK);
      if (stat.isFile()) return candidate;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') code = 'EACCES';
    }
  }
  throw spawnFailure({ code }, name, cwd);
}

function spawnFailure(
  error: { code?: string | undefined; message?: string },
  program: string,
  cwd: string,
): Error {
  const stat = statSync(cwd, { throwIfNoEntry: false });
  const code = error.code ?? 'EIO';
  if (code === 'ENOENT' && !stat) {
    return new RequestError(code, `working directory ${cwd} does not exist in the guest`);
  }
  if (code === 'ENOTDIR' || (stat && !stat.isDirectory())) {
    return new RequestError('ENOTDIR', `working directory ${cwd} is not a directory in the guest`);
  }
  if (code === 'ENOENT') return new RequestError(code, `no program ${program} in the guest`);
  if (code === 'EACCES') {
    return new RequestError(code, `${program} cannot be executed in ${cwd}: permission denied`);
  }
  if (code === 'E2BIG')
    return new RequestError(code, 'arguments and environment are too long together');
  return new RequestError(code, `${program} cannot be started: ${error.message ?? code}`);
}
