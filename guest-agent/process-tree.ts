/**
 * Everything an exec started, so that nothing of it outlives a kill.
 *
 * With cgroup v2 each exec has a group of its own. A child cannot be born in another group than its
 * parent's without clone3, which Node does not offer; so it is moved right after the spawn, and what it
 * forked before that is found in the agent's own group, where else only the agent is. Both steps run
 * without yielding, so whatever stands there belongs to this exec.
 *
 * Without cgroup v2 the tree is found in /proc: by session, by parents and by a mark in the environment.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';

/** The tree of one exec. */
export interface ProcessTree {
  /** Set in the exec's environment, where the tree is found by it. */
  readonly mark: Readonly<Record<string, string>>;
  /** Takes the process that was just spawned. Call in the same turn as the spawn. */
  adopt(pid: number): void;
  /** Sends a signal to every process. SIGKILL leaves nothing alive. */
  signal(signal: NodeJS.Signals): void;
  /** Frees what it takes; false where that cannot be, as processes are left in it. */
  release(): boolean;
}

/** Makes trees. */
export interface ProcessTrees {
  readonly kind: 'cgroup' | 'proc';
  create(id: string): ProcessTree;
  /** Prepares so many trees ahead of time, off the path of an exec. */
  prepare(count: number): void;
}

const CGROUP_ROOT = '/sys/fs/cgroup';
/** Below the root of cgroups: our groups … */
const GROUPS = 'qmp-agent';
/** … of which this is the agent's own. */
export const AGENT_GROUP = 'agent';
/** Directory of the groups of all execs. */
export const EXEC_GROUPS = `${CGROUP_ROOT}/${GROUPS}`;
/** Rounds of looking for processes that fork while they are moved or killed. */
const MAX_ROUNDS = 100;

/** By cgroup v2 where it is mounted at this place and may be written, else by /proc. */
export function processTrees(root = CGROUP_ROOT): ProcessTrees {
  try {
    return new CgroupTrees(root);
  } catch {
    return procTrees();
  }
}

/** By /proc: for an agent that is a guest itself where it runs, and must not touch the cgroups there. */
export function procTrees(): ProcessTrees {
  return new ProcTrees();
}

class CgroupTrees implements ProcessTrees {
  readonly kind = 'cgroup';
  readonly #base: string;
  readonly #own: OwnGroup;
  #next = 0;
  readonly #ready: CgroupTree[] = [];

  constructor(root: string) {
    readFileSync(`${root}/cgroup.controllers`);
    this.#base = `${root}/${GROUPS}`;
    const own = `${this.#base}/${AGENT_GROUP}`;
    mkdirSync(own, { recursive: true });
    this.#removeOld();
    writeFileSync(`${own}/cgroup.procs`, String(process.pid));
    this.#own = new OwnGroup(own);
  }

  create(): ProcessTree {
    return this.#ready.pop() ?? this.#make();
  }

  prepare(count: number): void {
    while (this.#ready.length < count) this.#ready.push(this.#make());
  }

  #make(): CgroupTree {
    this.#next += 1;
    // Of this agent's life: an earlier one that died may have left groups with processes in them.
    const path = `${this.#base}/${process.pid}-${this.#next}`;
    mkdirSync(path);
    return new CgroupTree(path, this.#own);
  }

  /** Groups of an earlier agent: what it ran has no owner any more and is killed. */
  #removeOld(): void {
    for (const entry of readdirSync(this.#base, { withFileTypes: true })) {
      if (!entry.isDirectory() || entry.name === AGENT_GROUP) continue;
      const path = `${this.#base}/${entry.name}`;
      killGroup(path);
      removeGroup(path); // or later: its processes may take a moment to die
    }
  }
}

/** The agent's own group: anybody else in it was forked by a process that is being adopted. */
class OwnGroup {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(4096);
  readonly #alone = `${process.pid}\n`;

  constructor(path: string) {
    this.#fd = openSync(`${path}/cgroup.procs`, 'r');
  }

  /** Up to a buffer full; who calls again gets the rest. */
  strays(): string[] {
    const length = readSync(this.#fd, this.#buffer, 0, this.#buffer.length, 0);
    const text = this.#buffer.toString('latin1', 0, length);
    if (text === this.#alone) return [];
    const whole = text.slice(0, Math.max(0, text.lastIndexOf('\n'))).split('\n');
    return whole.filter((pid) => pid !== '' && pid !== String(process.pid));
  }
}

/** Its descriptor is opened ahead of time, and closed once the first process is in. */
class CgroupTree implements ProcessTree {
  readonly mark = {};
  readonly #path: string;
  readonly #own: OwnGroup;
  readonly #procsFd: number;
  #adopting = true;

  constructor(path: string, own: OwnGroup) {
    this.#path = path;
    this.#own = own;
    this.#procsFd = openSync(`${path}/cgroup.procs`, 'w');
  }

  adopt(pid: number): void {
    this.#move(String(pid));
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const strays = this.#own.strays();
      if (strays.length === 0) break;
      for (const stray of strays) this.#move(stray);
    }
    this.#stopAdopting();
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') {
      killGroup(this.#path);
      return;
    }
    for (const pid of pidsIn(this.#path)) ignoreErrors(() => process.kill(Number(pid), signal));
  }

  release(): boolean {
    this.#stopAdopting();
    return removeGroup(this.#path);
  }

  #stopAdopting(): void {
    if (this.#adopting) closeSync(this.#procsFd);
    this.#adopting = false;
  }

  #move(pid: string): void {
    ignoreErrors(() => writeSync(this.#procsFd, pid)); // ESRCH: it has ended already
  }
}

function killGroup(path: string): void {
  ignoreErrors(() => writeFileSync(`${path}/cgroup.kill`, '1')); // Linux 5.14
}

/** Whether it is gone. */
function removeGroup(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function pidsIn(path: string): string[] {
  try {
    return readFileSync(`${path}/cgroup.procs`, 'latin1').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

const MARK_NAME = 'QMP_AGENT_EXEC';

class ProcTrees implements ProcessTrees {
  readonly kind = 'proc';
  create(id: string): ProcessTree {
    return new ProcTree(`${process.pid}-${id}`);
  }
  prepare(): void {
    // nothing to prepare
  }
}

class ProcTree implements ProcessTree {
  readonly mark: Readonly<Record<string, string>>;
  readonly #needle: string;
  #pid = 0;

  constructor(id: string) {
    this.mark = { [MARK_NAME]: id };
    this.#needle = `${MARK_NAME}=${id}\0`;
  }

  adopt(pid: number): void {
    this.#pid = pid;
  }

  signal(signal: NodeJS.Signals): void {
    const rounds = signal === 'SIGKILL' ? MAX_ROUNDS : 1;
    for (let round = 0; round < rounds; round++) {
      const members = this.#members();
      if (members.length === 0) return;
      for (const pid of members) ignoreErrors(() => process.kill(pid, signal));
    }
  }

  release(): boolean {
    return true; // it takes nothing
  }

  #members(): number[] {
    const processes = readProcesses();
    const roots = processes.filter((p) => p.session === this.#pid || this.#isMarked(p.pid));
    return descendants(
      processes,
      roots.map((p) => p.pid),
    );
  }

  #isMarked(pid: number): boolean {
    try {
      return `${readFileSync(`/proc/${pid}/environ`, 'latin1')}\0`.includes(this.#needle);
    } catch {
      return false;
    }
  }
}

/** A line of /proc/PID/stat, as far as it concerns us. */
export interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  /** `Z` is a zombie. */
  readonly state: string;
}

/** Reads /proc/PID/stat (proc(5)): a name in parentheses may itself hold blanks and parentheses. */
export function parseStat(text: string): ProcessEntry {
  const [state = '', parent, , session] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    pid: Number.parseInt(text, 10),
    parent: Number(parent),
    session: Number(session),
    state,
  };
}

/** `roots` and all that descends from them, zombies left out. */
export function descendants(
  processes: readonly ProcessEntry[],
  roots: readonly number[],
): number[] {
  const found = new Set(roots);
  for (let grew = true; grew;) {
    grew = false;
    for (const { pid, parent } of processes) {
      if (!found.has(parent) || found.has(pid)) continue;
      found.add(pid);
      grew = true;
    }
  }
  return processes.filter((p) => found.has(p.pid) && p.state !== 'Z').map((p) => p.pid);
}

/** All processes. */
function readProcesses(): ProcessEntry[] {
  const entries: ProcessEntry[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    ignoreErrors(() => entries.push(parseStat(readFileSync(`/proc/${name}/stat`, 'latin1'))));
  }
  return entries;
}

/** Processes come and go while we look at them. */
function ignoreErrors(action: () => void): void {
  try {
    action();
  } catch {
    // gone meanwhile
  }
}
