/**
 * Runs the programs of a build: whole process tree under our control, output scrubbed into a log,
 * steps picked out of it.
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { HostError, ImageError, type ImageErrorCode } from '../src/errors.ts';
import { boundedLines } from './bounded-lines.ts';
import { feedProgram } from './feed-program.ts';
import { scrubUrls } from './host-apt.ts';

/** Lines of a failed step that its error quotes. */
const QUOTED_LINES = 12;
/** Longest line kept; a progress bar without newlines can be endless. */
const MAX_LINE = 4096;
/** What programs say when the host's disk is full (strerror(3) of ENOSPC and EDQUOT) … */
const DISK_FULL = /No space left on device|Disk quota exceeded/i;
/** … and mke2fs when the image's own is. */
const IMAGE_FULL = /Could not allocate (block|inode) in ext2 filesystem/;
/** Search path of every program of a build; users' own PATHs often lack sbin. */
export const BUILD_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The log file of one build. */
export class BuildLog implements AsyncDisposable {
  readonly path: string;
  readonly #stream: WriteStream;
  readonly #startedAt = performance.now();
  #failure: Error | undefined;
  #hidden: readonly string[] = [];

  constructor(logPath: string) {
    this.path = logPath;
    this.#stream = createWriteStream(logPath, { flags: 'a', mode: 0o600 });
    this.#stream.on('error', (error) => (this.#failure = error)); // a build goes on without its log
  }

  /** From now on these words are written as stars. */
  hide(words: readonly string[]): void {
    this.#hidden = words;
  }

  /** Writes one line after the seconds since the start. Returns the text without passwords and hidden words. */
  line(text: string): string {
    let clean = text;
    for (const word of this.#hidden) clean = clean.replaceAll(word, '***');
    clean = scrubUrls(clean).slice(0, MAX_LINE);
    const seconds = ((performance.now() - this.#startedAt) / 1000).toFixed(1).padStart(6);
    if (this.#failure === undefined) this.#stream.write(`${seconds} ${clean}\n`);
    return clean;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure !== undefined || this.#stream.closed) return;
    await new Promise<void>((resolve) => {
      this.#stream.once('close', resolve);
      this.#stream.end();
    });
  }
}

/** One program of a build. */
export interface BuildCommand {
  /** Name of the step, for errors; {@link onLine} may change it as the program goes on. */
  readonly step: string;
  readonly argv: readonly string[];
  readonly log: BuildLog;
  readonly signal?: AbortSignal | undefined;
  /** The whole environment; nothing is inherited. PATH defaults to {@link BUILD_PATH}. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** What it reads from stdin; what reading this throws ends the program and is thrown. Default nothing. */
  readonly input?: AsyncIterable<Buffer> | undefined;
  /** Error code where it fails. Default ERR_IMAGE_BUILD. */
  readonly errorCode?: ImageErrorCode | undefined;
  /** Sees every line; returns the name of the step that begins with it, where one does. */
  readonly onLine?: ((line: string) => string | undefined) | undefined;
  /**
   * Root only: run in mount and pid namespaces of its own, which end with the program. So neither a
   * mount nor a process is left, however it ends.
   */
  readonly isolate?: boolean | undefined;
}

/** The program's stdout, and where it stood. Output is kept by lines and bounded. */
interface CommandResult {
  readonly stdout: string;
}

/**
 * Runs a program to its end. On abort the whole process group is killed before this rejects.
 * @throws {ImageError} it failed; quotes its last lines
 * @throws {HostError} ERR_HOST_DISK_FULL
 */
export async function runBuildCommand(command: BuildCommand): Promise<CommandResult> {
  command.signal?.throwIfAborted();
  let step = command.step;
  const tail: string[] = [];
  const stdout: string[] = [];
  const argv = wrap(command);
  command.log.line(`# ${command.step}: ${argv.join(' ')}`);
  const child = execa(argv[0] ?? '', argv.slice(1), {
    cwd: command.cwd ?? '/',
    env: { PATH: BUILD_PATH, LC_ALL: 'C.UTF-8', ...command.env },
    extendEnv: false,
    stdin: command.input === undefined ? 'ignore' : 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    buffer: false,
    reject: false,
    detached: true, // a process group of its own, to be killed as one
  });
  const kill = (): void => killGroup(child.pid);
  command.signal?.addEventListener('abort', kill, { once: true });
  const feeding = command.input && child.stdin && feedProgram(command.input, child.stdin);
  feeding?.catch(kill);
  const read = async (stream: AsyncIterable<Buffer | string>, out?: string[]): Promise<void> => {
    for await (const text of boundedLines(stream, MAX_LINE)) {
      const line = command.log.line(text);
      if (out !== undefined && out.length < 65_536) out.push(line);
      step = command.onLine?.(line) ?? step;
      if (line.trim() !== '' && tail.push(line) > QUOTED_LINES) tail.shift();
    }
  };
  try {
    const [result] = await Promise.all([child, read(child.stderr), read(child.stdout, stdout)]);
    command.signal?.throwIfAborted();
    await feeding;
    if (result.exitCode === 0) return { stdout: stdout.join('\n') };
    const reason =
      result.exitCode === undefined
        ? (result.originalMessage ?? `ended by ${result.signal ?? 'a signal'}`)
        : `exit code ${result.exitCode}`;
    throw describeFailure(command, step, reason, tail);
  } finally {
    command.signal?.removeEventListener('abort', kill);
    kill(); // what it left in the background
    await feeding?.catch(() => undefined);
  }
}

function describeFailure(
  command: BuildCommand,
  step: string,
  reason: string,
  tail: readonly string[],
): Error {
  const quoted = tail.map((line) => `  ${line}`).join('\n');
  if (tail.some((line) => DISK_FULL.test(line))) {
    return new HostError('ERR_HOST_DISK_FULL', `step "${step}": no space left on the host's disk`, {
      hint: `Free some space, or point state.dataDir to a larger disk; the log is ${command.log.path}.`,
    });
  }
  const code = command.errorCode ?? 'ERR_IMAGE_BUILD';
  if (tail.some((line) => IMAGE_FULL.test(line))) {
    const message = `step "${step}": the files do not fit on the image's disk`;
    const hint = `Raise sizeMib in the recipe; the log is ${command.log.path}.`;
    return new ImageError(code, message, { step, logPath: command.log.path, hint });
  }
  return new ImageError(
    code,
    `step "${step}" failed (${reason})${quoted === '' ? '' : `; its last lines:\n${quoted}`}`,
    { step, logPath: command.log.path, hint: `Read the whole log: ${command.log.path}` },
  );
}

/**
 * `setpriv --pdeathsig` ends the build where this process is killed, `unshare` ends with it whatever
 * it started (the pid namespace dies with its first process) and every mount it made.
 */
function wrap(command: BuildCommand): readonly string[] {
  if (command.isolate !== true) return command.argv;
  const isolation = ['setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount', '--pid', '--fork'];
  return [...isolation, '--mount-proc', '--kill-child=KILL', ...command.argv];
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ESRCH: the group is gone, as it should be
  }
}

/** Path of a program in {@link BUILD_PATH}; undefined where it is not installed. */
export async function findTool(name: string): Promise<string | undefined> {
  for (const directory of BUILD_PATH.split(':')) {
    const candidate = path.join(directory, name);
    const found = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return candidate;
  }
  return undefined;
}

/** Debian packages that hold our tools. */
const PACKAGE_OF: Readonly<Record<string, string>> = {
  mmdebstrap: 'mmdebstrap',
  mke2fs: 'e2fsprogs',
  'qemu-img': 'qemu-utils',
  unshare: 'util-linux',
  setpriv: 'util-linux',
  'dpkg-deb': 'dpkg',
  newuidmap: 'uidmap',
  tar: 'tar',
  xz: 'xz-utils',
  zstd: 'zstd',
};

/**
 * Checks that programs are installed.
 * @throws {HostError} ERR_HOST_TOOL, names all that are missing and their packages
 */
export async function requireTools(names: readonly string[]): Promise<void> {
  const found = await Promise.all(names.map(findTool));
  const missing = names.filter((_, index) => found[index] === undefined);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((name) => PACKAGE_OF[name] ?? name))];
  throw new HostError('ERR_HOST_TOOL', `not installed: ${missing.join(', ')}`, {
    hint: `Install what is missing: apt-get install ${packages.join(' ')}`,
  });
}
