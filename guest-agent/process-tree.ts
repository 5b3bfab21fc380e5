/**
 * Everything an exec started, so that nothing of it outlives a kill.
 *
 * With cgroup v2 each exec has a group of its own. A child cannot be born in another group than its
 * parent's without clone3, which Node does not offer; so it is moved right after the spawn, and what it
 * forked before that is found in the agent's own group, where else only the agent is. Both steps run
 * without yielding, so whatever stands there belongs to this exec.
 *
 * Without cgroup v2 (development on an older host), the tree is found in /proc: by session, by parents
 * and by a mark in the environment.
 */
import { mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';

/** The tree of one exec. */
export interface ProcessTree {
  /** Set in the exec's environment, where the tree is found by it. */
  readonly mark: Readonly<Record<string, string>>;
  /** Takes the process that was just spawned. Call in the same turn as the spawn. */
  adopt(pid: number): void;
  /** Sends a signal to every process. SIGKILL leaves nothing alive. */
  signal(signal: NodeJS.Signals): void;
  /** Whether nothing of it is left. */
  isEmpty(): boolean;
  /** Frees what it takes; false where processes are left. */
  release(): boolean;
}

/** Makes trees. */
export interface ProcessTrees {
  readonly kind: 'cgroup' | 'proc';
  create(id: string): ProcessTree;
  /** Prepares the next tree ahead of time, off the path of an exec. */
  prepare(): void;
}

const CGROUP_ROOT = '/sys/fs/cgroup';
/** Rounds of looking for processes that fork while they are moved or killed. */
const MAX_ROUNDS = 100;

/** By cgroup v2 where it is mounted and may be written, else by /proc. */
export function processTrees(root = CGROUP_ROOT): ProcessTrees {
  try {
    return new CgroupTrees(root);
  } catch {
    return new ProcTrees();
  }
}

class CgroupTrees implements ProcessTrees {
  readonly kind = 'cgroup';
  readonly #base: string;
  readonly #agent: string;
  #next = 0;
  #ready: string | undefined;

  constructor(root: string) {
    readFileSync(`${root}/cgroup.controllers`);
    this.#base = `${root}/qmp-agent`;
    this.#agent = `${this.#base}/agent`;
    mkdirSync(this.#agent, { recursive: true });
    this.#removeOld();
    writeFileSync(`${this.#agent}/cgroup.procs`, String(process.pid));
    this.prepare();
  }

  create(): ProcessTree {
    this.prepare();
    const path = this.#ready ?? '';
    this.#ready = undefined;
    return new CgroupTree(path, this.#agent);
  }

  prepare(): void {
    if (this.#ready !== undefined) return;
    this.#next += 1;
    // Of this agent's life: an earlier one that died may have left groups with processes in them.
    const path = `${this.#base}/${process.pid}-${this.#next}`;
    mkdirSync(path);
    this.#ready = path;
  }

  /** Groups of an earlier agent: what it ran has no owner any more and is killed. */
  #removeOld(): void {
    for (const entry of readdirSync(this.#base, { withFileTypes: true })) {
      if (!entry.isDirectory() || entry.name === 'agent') continue;
      const tree = new CgroupTree(`${this.#base}/${entry.name}`, this.#agent);
      tree.signal('SIGKILL');
      tree.release();
    }
  }
}

class CgroupTree implements ProcessTree {
  readonly mark = {};
  readonly #path: string;
  readonly #agentPath: string;

  constructor(path: string, agentPath: string) {
    this.#path = path;
    this.#agentPath = agentPath;
  }

  adopt(pid: number): void {
    this.#move(pid);
    const self = String(process.pid);
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const strays = pidsIn(this.#agentPath).filter((stray) => stray !== self);
      if (strays.length === 0) return;
      for (const stray of strays) this.#move(Number(stray));
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') {
      ignoreErrors(() => writeFileSync(`${this.#path}/cgroup.kill`, '1')); // Linux 5.14
      return;
    }
    for (const pid of pidsIn(this.#path)) ignoreErrors(() => process.kill(Number(pid), signal));
  }

  isEmpty(): boolean {
    return pidsIn(this.#path).length === 0;
  }

  release(): boolean {
    try {
      rmdirSync(this.#path);
      return true;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ENOENT';
    }
  }

  #move(pid: number): void {
    // ESRCH: it has ended already.
    ignoreErrors(() => writeFileSync(`${this.#path}/cgroup.procs`, String(pid)));
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

  isEmpty(): boolean {
    return this.#members().length === 0;
  }

  release(): boolean {
    return this.isEmpty();
  }

  #members(): number[] {
    const processes = readProcesses();
    const found = new Set<number>([this.#pid]);
    for (const p of processes)
      if (p.session === this.#pid || this.#isMarked(p.pid)) found.add(p.pid);
    for (let grew = true; grew;) {
      grew = false;
      for (const p of processes) {
        if (found.has(p.parent) && !found.has(p.pid)) {
          found.add(p.pid);
          grew = true;
        }
      }
    }
    const alive = new Set(processes.filter((p) => p.state !== 'Z').map((p) => p.pid));
    return [...found].filter((pid) => alive.has(pid));
  }

  #isMarked(pid: number): boolean {
    try {
      return `${readFileSync(`/proc/${pid}/environ`, 'latin1')}\0`.includes(this.#needle);
    } catch {
      return false;
    }
  }
}

interface ProcEntry {
  pid: number;
  parent: number;
  session: number;
  state: string;
}

/** All processes, from /proc/PID/stat (proc(5)): fields after the parenthesised name. */
function readProcesses(): ProcEntry[] {
  const entries: ProcEntry[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    ignoreErrors(() => {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const [state = '', parent, , session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      entries.push({ pid: Number(name), parent: Number(parent), session: Number(session), state });
    });
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
