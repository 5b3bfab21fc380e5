/**
 * The guest kernel's command line, and with it the few facts that our init must know before it can
 * read anything else. Words that start with `qmp_agent.` are ours.
 */
import { machineFacts, type MachineType } from './machine.ts';
import { MODULE_GROUPS, type ModuleGroup } from './modules.ts';

/** What the command line depends on. */
export interface CmdlineOptions {
  readonly machine: MachineType;
  readonly accel: 'kvm' | 'tcg';
  /** Guest hostname: letters, digits, `-` and `.`, at most 64 characters. */
  readonly hostname: string;
  /** How the agent is reached. */
  readonly channel: 'vsock' | 'virtio-serial';
  /** What else the VM has whose modules the init shall load, e.g. `net`, `9p`, `rng`. Default none. */
  readonly modules?: readonly ModuleGroup[] | undefined;
  /** Print the kernel's messages. Default false: only errors, which is faster and still shows a panic. */
  readonly verbose?: boolean | undefined;
  /** Program that the init starts as root instead of the agent (benchmark floors, diagnosis). Its words must not hold spaces. */
  readonly run?: string | undefined;
  /** Further words, last, so that they win. */
  readonly extra?: readonly string[] | undefined;
}

/** The words of the kernel command line, joined by blanks. */
export function buildCmdline(options: CmdlineOptions): string {
  const facts = machineFacts(options.machine);
  const groups: ModuleGroup[] = [facts.bus, 'root', ...(options.modules ?? [])];
  if (options.channel === 'vsock') groups.push('vsock');
  if (facts.pvpanicDevice !== undefined) groups.push('pvpanic');
  const modules = [...new Set(groups.flatMap((group) => MODULE_GROUPS[group]))];
  return [
    'console=ttyS0',
    options.verbose === true ? 'loglevel=7' : 'quiet',
    'panic=-1',
    `qmp_agent.modules=${modules.join(',')}`,
    `qmp_agent.hostname=${options.hostname}`,
    ...(options.run === undefined ? [] : [`qmp_agent.run=${options.run}`]),
    ...(options.extra ?? []),
  ].join(' ');
}
