/** Starts the first process of an exec. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, closeSync, constants, existsSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { delimiter, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { execEnvironment } from './environment.ts';
import type { Libc } from './libc.ts';
import type { ProcessTree } from './process-tree.ts';
import type { ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { lookUpUser, type GuestUser } from './users.ts';

/** A process that runs, and its ends of the pipes. */
export interface Spawned {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly stdin: Writable | undefined;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly user: string;
  readonly cwd: string;
  /** As the list shows it. */
  readonly command: readonly string[];
}

/** util-linux; only needed for users with supplementary groups, which libuv drops. */
const SETPRIV = '/usr/bin/setpriv';

/**
 * Starts the process as its user, in a session of its own, and puts it into its tree.
 *
 * @param libc where loaded: stdio are real pipes then. Node's own are sockets, which a program cannot
 *   open again by the name /dev/stdout or /dev/stderr.
 * @throws RequestError `ENOENT`, `EACCES`, `E2BIG`, `EUSER`, …
 */
export async function spawnExec(
  spec: ExecSpec,
  tree: ProcessTree,
  libc: Libc | undefined,
): Promise<Spawned> {
  const user = lookUpUser(spec.user);
  const cwd = workingDirectory(spec.cwd, user);
  const env = { ...execEnvironment(user, spec.env), ...tree.mark };
  const command = spec.argv ?? [
    existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh',
    spec.shell ?? '',
  ];
  const argv = spec.argv ?? shellArgv(command[0] ?? '', spec.shell ?? '');
  const identity = identityOptions(user);
  const wrapped = identity.wrap ? [...identity.wrap, ...findProgram(argv, env['PATH'], cwd)] : argv;
  const [file = '', ...args] = wrapped;
  const pipes = libc ? pipeStdio(libc, spec.stdin === true) : undefined;
  let child: ChildProcess;
  try {
    child = spawn(file, args, {
      cwd,
      env,
      detached: true, // setsid: a process group of its own, and no controlling terminal
      stdio: pipes?.stdio ?? [spec.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      ...identity.options,
    });
    if (child.pid !== undefined) tree.adopt(child.pid);
  } catch (error) {
    pipes?.closeOurs();
    throw spawnFailure(error as NodeJS.ErrnoException, argv[0] ?? '', cwd);
  } finally {
    pipes?.closeTheirs();
  }
  if (child.pid === undefined) {
    pipes?.closeOurs();
    const [error] = (await once(child, 'error').catch((e: unknown) => [e])) as [
      NodeJS.ErrnoException,
    ];
    throw spawnFailure(error, argv[0] ?? '', cwd);
  }
  child.on('error', () => undefined); // a later kill that fails; the exit tells what matters
  return {
    child,
    pid: child.pid,
    ...(pipes?.open() ?? nodeStdio(child)),
    user: user.name,
    cwd,
    command: spec.argv ? [...spec.argv] : [spec.shell ?? ''],
  };
}

function shellArgv(shell: string, line: string): string[] {
  return shell === '/bin/bash' ? [shell, '-lc', line] : [shell, '-c', line];
}

function workingDirectory(cwd: string | undefined, user: GuestUser): string {
  if (cwd !== undefined) return resolve(user.home, cwd);
  return statSync(user.home, { throwIfNoEntry: false })?.isDirectory() ? user.home : '/';
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

/** setpriv would hide whether the program exists behind its own exit code. */
function findProgram(
  argv: readonly string[],
  path: string | undefined,
  cwd: string,
): readonly string[] {
  const [name = '', ...args] = argv;
  const candidates = name.includes('/')
    ? [resolve(cwd, name)]
    : (path ?? '').split(delimiter).map((dir) => resolve(cwd, dir, name));
  let code = 'ENOENT';
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return [candidate, ...args];
      code = 'EACCES';
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

/** Capacity of the pipes: Linux's default for what a user may ask for (pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;

function pipeStdio(libc: Libc, withStdin: boolean) {
  const all: { readFd: number; writeFd: number }[] = [];
  const make = () => {
    const pair = libc.pipe(PIPE_BYTES);
    all.push(pair);
    return pair;
  };
  const input = withStdin ? make() : undefined;
  const output = make();
  const errors = make();
  const theirs = [input?.readFd, output.writeFd, errors.writeFd];
  const ours = [input?.writeFd, output.readFd, errors.readFd];
  const closeAll = (fds: (number | undefined)[]) => {
    for (const fd of fds) if (fd !== undefined) closeSync(fd);
  };
  return {
    stdio: theirs.map((fd) => fd ?? 'ignore') satisfies StdioOptions,
    closeTheirs: () => closeAll(theirs),
    closeOurs: () => closeAll(ours),
    open: () => ({
      stdin: input && new Socket({ fd: input.writeFd, readable: false, writable: true }),
      stdout: new Socket({ fd: output.readFd, readable: true, writable: false }),
      stderr: new Socket({ fd: errors.readFd, readable: true, writable: false }),
    }),
  };
}

function nodeStdio(child: ChildProcess) {
  const { stdin, stdout, stderr } = child;
  if (!stdout || !stderr) throw new RequestError('EIO', 'no pipes to the process', 500);
  return { stdin: stdin ?? undefined, stdout, stderr };
}
