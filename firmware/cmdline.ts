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
  /**
   * Rate of the counter that `rdtsc` reads, kHz. Only a microvm under TCG needs it: the kernel finds no
   * timer there to measure it by (hardware-reduced ACPI: no PIT, no PM timer), and would hang.
   */
  readonly tscKhz?: number | undefined;
  /** Print the kernel's messages. Default false: only errors, which is faster and still shows a panic. */
  readonly verbose?: boolean | undefined;
  /**
   * Program and arguments that the init runs once, as root, instead of the agent (floors of
   * benchmarks, diagnosis). Its output goes to the console; when it ends, the guest powers off.
   */
  readonly run?: readonly string[] | undefined;
  /** Further words, last, so that they win. */
  readonly extra?: readonly string[] | undefined;
}

/**
 * Only under emulation. No other guest's secrets pass through the emulated processor's caches. And the
 * jitter random generator, which draws on the processor's timing, tests itself for 0.1 s on a processor
 * that has no timing of its own; the kernel's other generators go on without it (crypto/drbg.c: "Continuing
 * without Jitter RNG"). Where each process has its programs at other addresses, QEMU translates the dynamic linker and
 * libc anew for each: 2-3 MiB of code and half of the time of a command (`norandmaps`,
 * Documentation/admin-guide/kernel-parameters.txt). And its time stamp counter needs no watchdog, which wakes an idle
 * guest twice a second: QEMU makes all its clocks of one. Its TLB knows pages of 4 KiB only, so huge ones are work for
 * nothing, and memory that a copy shares no more (`transparent_hugepage`).
 */
const TCG_WORDS: readonly string[] = [
  'mitigations=off',
  'norandmaps',
  'tsc=reliable',
  'transparent_hugepage=madvise',
  'initcall_blacklist=jent_mod_init',
];

/** The words of the kernel command line, joined by blanks. */
export function buildCmdline(options: CmdlineOptions): string {
  const facts = machineFacts(options.machine);
  const groups: ModuleGroup[] = [facts.bus, 'root', ...(options.modules ?? [])];
  if (options.channel === 'vsock') groups.push('vsock');
  if (facts.pvpanicDevice !== undefined) groups.push('pvpanic');
  const needsTscRate = options.accel === 'tcg' && options.machine === 'microvm';
  const modules = [...new Set(groups.flatMap((group) => MODULE_GROUPS[group]))];
  return [
    'console=ttyS0',
    options.verbose === true ? 'loglevel=7' : 'quiet',
    'panic=-1',
    ...(options.accel === 'tcg' ? TCG_WORDS : []),
    ...(needsTscRate && options.tscKhz !== undefined ? [`tsc_early_khz=${options.tscKhz}`] : []),
    `qmp_agent.modules=${modules.join(',')}`,
    `qmp_agent.hostname=${options.hostname}`,
    ...(options.run === undefined ? [] : [`qmp_agent.run=${encodeRun(options.run)}`]),
    ...(options.extra ?? []),
  ].join(' ');
}

/** Quoted for the init's shell, then every byte that could mean something on the way in octal. */
function encodeRun(argv: readonly string[]): string {
  const quoted = argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
  let encoded = '';
  for (const byte of Buffer.from(quoted)) {
    const character = String.fromCharCode(byte);
    encoded += /[A-Za-z0-9/._-]/.test(character)
      ? character
      : `\\0${byte.toString(8).padStart(3, '0')}`;
  }
  return encoded;
}
