/**
 * A process that waits to become the next command: a shell that was started ahead of time as the user, in
 * a session, a tree and with pipes of its own, and that reads from a pipe what it shall be. It spares a
 * command the fork of the agent, whose page tables are large, and the `setpriv` before it: a fifth of a
 * short command under emulation.
 *
 * It serves what the next command most likely is: one by the same user in the same directory as the last.
 * Whatever it cannot do exactly as a plain start would is left to a plain start.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  fchownSync,
  fstatSync,
  openSync,
  readSync,
  readlinkSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename } from 'node:path';
import type { Duplex } from 'node:stream';
import { libc } from './libc.ts';
import type { ProcessTree } from './process-tree.ts';
import { findProgram, startOptions, type ExecPlan, type Spawned } from './spawn.ts';
import type { Attached, Stdio } from './stdio.ts';
import { stampOf } from './users.ts';

const SHELL = '/bin/sh';
/** Where the shell finds its script: its name for what it has as descriptor 3. */
const SCRIPT = '/proc/self/fd/3';
/** The pipe takes as much at once, so that writing never waits. */
const MAX_SCRIPT_BYTES = 32 * 1024;

/** What nobody waits for is done after most commands are over, ms. */
const LATER_MS = 50;

/** Names that the shell itself gives a meaning that does not survive into the environment unchanged. */
const SHELL_VARIABLES = new Set(['IFS', 'LINENO', 'OPTIND', 'PPID', 'PS1', 'PS2', 'PS4', '_']);

/** What a starter is made of, and the tree is. */
export interface StarterParts {
  readonly tree: ProcessTree;
  readonly stdio: Stdio;
}

/** One waiting process. */
export class Starter {
  readonly #identity: string;
  readonly #cwd: string;
  readonly #env: ExecPlan['env'];
  readonly #place: string | undefined;
  readonly #tree: ProcessTree;
  readonly #pipes: Attached;
  readonly #child: ChildProcess;
  readonly #scriptFd: number;
  #isOver = false;

  /**
   * Starts one that can become commands like this.
   * @returns undefined where this guest's shell is none that we know the ways of, or it does not start
   */
  static async start(
    like: ExecPlan,
    takeParts: () => Promise<StarterParts | undefined>,
  ): Promise<Starter | undefined> {
    if (!isKnownShell()) return undefined;
    const place = placeOf(like.cwd);
    const calls = await libc().catch(() => undefined);
    if (place === undefined || calls === undefined) return undefined;
    const parts = await takeParts();
    if (parts === undefined) return undefined;
    const { readFd, writeFd } = calls.pipe();
    try {
      parts.stdio.giveTo(like.user);
      fchownSync(readFd, like.user.uid, like.user.gid); // it opens the pipe again, by its name
      const { file, args, options } = startOptions(like, [SHELL, SCRIPT]);
      const child = spawn(file, args, {
        cwd: like.cwd,
        env: { ...like.env, ...parts.tree.mark },
        detached: true,
        stdio: [...parts.stdio.options, readFd],
        ...options,
      });
      child.on('error', () => undefined); // told by the pid that is missing
      if (child.pid === undefined) throw new Error('no process');
      parts.tree.adopt(child.pid);
      const { tree, stdio } = parts;
      return new Starter(like, place, {
        ...{ tree, child, pipes: stdio.attach(child), scriptFd: writeFd },
      });
    } catch {
      closeSync(writeFd);
      parts.stdio.abandon();
      parts.tree.release();
      return undefined;
    } finally {
      closeSync(readFd);
    }
  }

  private constructor(
    like: ExecPlan,
    place: string,
    o: { tree: ProcessTree; child: ChildProcess; pipes: Attached; scriptFd: number },
  ) {
    this.#identity = identityOf(like);
    this.#cwd = like.cwd;
    this.#env = like.env;
    this.#place = place;
    this.#tree = o.tree;
    this.#pipes = o.pipes;
    this.#child = o.child;
    this.#scriptFd = o.scriptFd;
  }

  /** Whether commands like this one are what it waits for, and it still does. */
  fits(plan: ExecPlan): boolean {
    return (
      !this.#isOver &&
      this.#child.exitCode === null &&
      this.#child.signalCode === null &&
      identityOf(plan) === this.#identity &&
      plan.cwd === this.#cwd &&
      placeOf(plan.cwd) === this.#place
    );
  }

  /**
   * Becomes this command.
   * @returns undefined where the shell would not do exactly what execve(2) does
   */
  become(plan: ExecPlan): Spawned | undefined {
    const script = starterScript({ ...plan, from: this.#env });
    if (script === undefined) return undefined;
    try {
      writeSync(this.#scriptFd, script);
    } catch {
      return undefined; // it has just died: EPIPE
    }
    this.#isOver = true;
    const { stdin, ...outputs } = this.#pipes;
    setTimeout(() => {
      closeSync(this.#scriptFd);
      if (!plan.stdin) stdin?.destroy();
    }, LATER_MS);
    return {
      child: this.#child,
      pid: this.#child.pid ?? 0,
      tree: this.#tree,
      ...outputs,
      stdin: plan.stdin ? stdin : undefined,
    };
  }

  /** Ends it unused. @returns its tree, to be freed once nothing runs in it */
  end(): ProcessTree {
    if (!this.#isOver) {
      this.#isOver = true;
      closeSync(this.#scriptFd);
      for (const pipe of Object.values(this.#pipes)) (pipe as Duplex | undefined)?.destroy();
      this.#tree.signal('SIGKILL');
    }
    return this.#tree;
  }
}

/** Keeps one starter for what the next command most likely is. */
export class StarterStock {
  #waiting: Starter | undefined;
  #last: ExecPlan | undefined;
  #isBusy = false;
  #program: { key: string; path: string; stamp: string | undefined } | undefined;

  /**
   * A process that becomes this command, where one waits that can.
   * @throws RequestError `ENOENT`, `EACCES`: there is no such program
   */
  take(plan: ExecPlan): Spawned | undefined {
    this.#last = plan;
    const starter = this.#waiting;
    if (starter?.fits(plan) !== true) return undefined;
    if (!this.#isPlain(plan)) return undefined;
    const spawned = starter.become(plan);
    if (spawned) this.#waiting = undefined; // else it is ended by the next `prepare`, or serves another
    return spawned;
  }

  /** Looks only once for a program that is asked for again and has not changed. */
  #isPlain({ argv, env, cwd }: ExecPlan): boolean {
    const key = `${argv[0] ?? ''}\0${env['PATH'] ?? ''}\0${cwd}`;
    if (key === this.#program?.key && stampOf(this.#program.path) === this.#program.stamp)
      return true;
    const path = findProgram(argv, env['PATH'], cwd);
    if (!isPlainProgram(path)) return false;
    this.#program = { key, path, stamp: stampOf(path) };
    return true;
  }

  /**
   * Has one wait for commands like the last.
   * @param onUnused gets the tree of one that nobody needed
   */
  async prepare(
    takeParts: () => Promise<StarterParts | undefined>,
    onUnused: (tree: ProcessTree) => void,
  ): Promise<void> {
    const like = this.#last;
    if (this.#isBusy || like === undefined || this.#waiting?.fits(like) === true) return;
    const unfit = this.#waiting;
    this.#waiting = undefined;
    if (unfit) onUnused(unfit.end());
    this.#isBusy = true;
    try {
      this.#waiting = await Starter.start(like, takeParts);
    } finally {
      this.#isBusy = false;
    }
  }
}

/**
 * What the shell is told, in one line: to take on environment and streams, and to become the command.
 * @param from the environment that the shell was started with
 * @returns undefined where the shell would not do exactly what execve(2) does
 */
export function starterScript(o: {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly from: Readonly<Record<string, string>>;
  readonly stdin: boolean;
}): string | undefined {
  const { argv, env, from } = o;
  const [program = ''] = argv;
  if (program === '' || program.startsWith('-')) return undefined;
  const set = Object.entries(env).filter(([name, value]) => from[name] !== value || isShells(name));
  const gone = Object.keys(from).filter((name) => !(name in env));
  // Of all, not only of what differs: the shell hands on its own values of some, and drops others.
  const names = Object.keys({ ...from, ...env });
  if (!names.every((name) => /^[A-Za-z_]\w*$/.test(name) && !SHELL_VARIABLES.has(name)))
    return undefined;
  if (![...argv, ...set.map(([, value]) => value)].every(isPlain)) return undefined;
  const script = [
    `unset ${[...SHELLS_OWN, ...gone].join(' ')}`,
    ...set.map(([name, value]) => `export ${name}=${quote(value)}`),
    `exec 3<&-${o.stdin ? '' : ' </dev/null'}`,
    `exec ${argv.map(quote).join(' ')}\n`,
  ].join(';');
  return script.length <= MAX_SCRIPT_BYTES ? script : undefined;
}

/** What the shell puts into the environment of its own accord. */
const SHELLS_OWN = ['PWD', 'OLDPWD'];

function isShells(name: string): boolean {
  return SHELLS_OWN.includes(name);
}

/** ASCII without NUL: dash marks places in words by bytes above that. */
function isPlain(text: string): boolean {
  return /^[\x01-\x7f]*$/.test(text);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Whether the kernel runs this program, for anybody, without another that might be missing: where
 * execve(2) fails, a plain start can say so, and the shell only prints it.
 */
function isPlainProgram(path: string): boolean {
  const magic = Buffer.alloc(4);
  try {
    const fd = openSync(path, 'r');
    try {
      readSync(fd, magic, 0, 4, 0);
      return magic.toString('latin1') === '\x7fELF' && (fstatSync(fd).mode & 0o001) !== 0;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

function identityOf({ user }: ExecPlan): string {
  return [user.uid, user.gid, ...user.groups].join(' ');
}

/** A directory may be removed and made anew under its name while a process stands in the old one. */
function placeOf(cwd: string): string | undefined {
  const stat = statSync(cwd, { throwIfNoEntry: false });
  return stat?.isDirectory() === true ? `${stat.dev} ${stat.ino}` : undefined;
}

let known: boolean | undefined;

/** dash, as Debian's and Ubuntu's `sh` is: others export variables of their own to what they become. */
function isKnownShell(): boolean {
  known ??= (() => {
    try {
      return basename(readlinkSync(SHELL)) === 'dash';
    } catch {
      return false;
    }
  })();
  return known;
}
