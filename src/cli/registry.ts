/**
 * All commands. Each is a file of its own, loaded only where it is the one called: `run` should not
 * wait for the code of twenty others.
 */
import type { Command } from 'commander';
import type { CliContext } from './context.ts';

/** A command, before its file is loaded. */
export interface CommandEntry {
  readonly name: string;
  readonly alias?: string;
  /** For the list in `qmp-agent --help`. */
  readonly summary: string;
  /** Whether its exit code may be that of a command in the guest. */
  readonly passesExitCode?: true;
  /** Whether it looks at all commands, so that all have to be loaded. */
  readonly needsAll?: true;
  /** Not in the list. */
  readonly hidden?: true;
  /** Loads the file and adds the command to the program. */
  readonly register: (program: Command, context: CliContext) => Promise<void>;
}

/** In the order of `qmp-agent --help`. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'run',
    summary: 'run a command in a new VM that is gone afterwards',
    passesExitCode: true,
    register: async (p, c) => (await import('./commands/run.ts')).registerRun(p, c),
  },
  {
    name: 'create',
    summary: 'create and start a VM that stays',
    register: async (p, c) => (await import('./commands/create.ts')).registerCreate(p, c),
  },
  {
    name: 'exec',
    summary: 'run a command in a VM',
    passesExitCode: true,
    register: async (p, c) => (await import('./commands/exec.ts')).registerExec(p, c),
  },
  {
    name: 'list',
    alias: 'ls',
    summary: 'list VMs',
    register: async (p, c) => (await import('./commands/list.ts')).registerList(p, c),
  },
  {
    name: 'inspect',
    summary: 'show everything about VMs, as JSON',
    register: async (p, c) => (await import('./commands/inspect.ts')).registerInspect(p, c),
  },
  {
    name: 'logs',
    summary: "show a VM's serial console or QEMU's messages",
    register: async (p, c) => (await import('./commands/logs.ts')).registerLogs(p, c),
  },
  {
    name: 'console',
    summary: "connect the terminal to a VM's serial console",
    register: async (p, c) => (await import('./commands/console.ts')).registerConsole(p, c),
  },
  {
    name: 'qmp',
    summary: "send a command to a VM's QEMU, or open a prompt",
    register: async (p, c) => (await import('./commands/qmp.ts')).registerQmp(p, c),
  },
  {
    name: 'pause',
    summary: 'stop the virtual CPUs of VMs',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerPause(p, c),
  },
  {
    name: 'suspend',
    summary: 'write VMs to disk and free their memory',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerSuspend(p, c),
  },
  {
    name: 'resume',
    summary: 'let paused and suspended VMs go on',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerResume(p, c),
  },
  {
    name: 'start',
    summary: 'start stopped VMs',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerStart(p, c),
  },
  {
    name: 'stop',
    summary: 'shut VMs down; their disks stay',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerStop(p, c),
  },
  {
    name: 'kill',
    summary: 'end VMs at once; their disks stay',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerKill(p, c),
  },
  {
    name: 'remove',
    alias: 'rm',
    summary: 'delete VMs with their disks',
    register: async (p, c) => (await import('./commands/lifecycle.ts')).registerRemove(p, c),
  },
  {
    name: 'snapshot',
    summary: 'put VMs back to where they were',
    register: async (p, c) => (await import('./commands/snapshot.ts')).registerSnapshot(p, c),
  },
  {
    name: 'net',
    summary: 'what a VM may reach, and what it did',
    register: async (p, c) => (await import('./commands/net.ts')).registerNet(p, c),
  },
  {
    name: 'template',
    summary: 'freeze machines for clones to go on from',
    register: async (p, c) => (await import('./commands/template.ts')).registerTemplate(p, c),
  },
  {
    name: 'clone',
    summary: 'a VM that goes on from where a template stands',
    register: async (p, c) => (await import('./commands/clone.ts')).registerClone(p, c),
  },
  {
    name: 'fork',
    summary: 'VMs that go on from where a running one is, which goes on, too',
    register: async (p, c) => (await import('./commands/fork.ts')).registerFork(p, c),
  },
  {
    name: 'tree',
    summary: 'show what stands on what: images, templates, VMs, forks',
    register: async (p, c) => (await import('./commands/tree.ts')).registerTree(p, c),
  },
  {
    name: 'diff',
    summary: 'show which files have changed from one checkpoint to another',
    register: async (p, c) => (await import('./commands/diff.ts')).registerDiff(p, c),
  },
  {
    name: 'disk',
    summary: 'what is on the disk, and what could go',
    register: async (p, c) => (await import('./commands/disk.ts')).registerDisk(p, c),
  },
  {
    name: 'gc',
    summary: 'clean up what dead processes left behind',
    register: async (p, c) => (await import('./commands/gc.ts')).registerGc(p, c),
  },
  {
    name: 'image',
    summary: 'build, import, list and remove images',
    register: async (p, c) => (await import('./commands/image.ts')).registerImage(p, c),
  },
  {
    name: 'config',
    summary: 'show the settings and where they come from',
    register: async (p, c) => (await import('./commands/config.ts')).registerConfig(p, c),
  },
  {
    name: 'setup',
    summary: 'set up this host for networks of VMs',
    register: async (p, c) => (await import('./commands/setup.ts')).registerSetup(p, c),
  },
  {
    name: 'doctor',
    summary: 'check what this host offers and what it lacks',
    register: async (p, c) => (await import('./commands/doctor.ts')).registerDoctor(p, c),
  },
  {
    name: 'bench',
    summary: 'measure this host: figures beside their floors',
    register: async (p, c) => (await import('./commands/bench.ts')).registerBench(p, c),
  },
  {
    name: 'completion',
    summary: 'print a completion script for bash or zsh',
    needsAll: true,
    register: async (p, c) => (await import('./commands/completion.ts')).registerCompletion(p, c),
  },
  {
    name: 'version',
    summary: 'show the version',
    register: async (p, c) => (await import('./commands/version.ts')).registerVersion(p, c),
  },
  {
    name: '__complete',
    summary: 'names for the completion scripts',
    hidden: true,
    register: async (p, c) => (await import('./commands/complete.ts')).registerComplete(p, c),
  },
];

/** The entry of a command or alias. */
export function findCommand(word: string | undefined): CommandEntry | undefined {
  if (word === undefined) return undefined;
  return COMMANDS.find((entry) => entry.name === word || entry.alias === word);
}
