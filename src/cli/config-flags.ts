/** Flags that are settings: each knows the setting it overrides. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import type { FlagValue } from '../config/layers.ts';

/** An option that overrides a setting. */
export class ConfigOption extends Option {
  readonly path: readonly [section: string, key: string];
  /** Undefined: as it was given. */
  readonly #toSetting: ((value: string) => string) | undefined;

  constructor(
    flags: string,
    description: string,
    path: readonly [string, string],
    toSetting?: (value: string) => string,
  ) {
    super(flags, description);
    this.path = path;
    this.#toSetting = toSetting;
  }

  /** What the schema validates. */
  setting(value: unknown): unknown {
    return typeof value === 'string' && this.#toSetting ? this.#toSetting(value) : value;
  }
}

/** Durations of flags count seconds where they have no unit, as in `timeout(1)` and `docker stop`. */
export function seconds(value: string): string {
  return /^\d+(\.\d+)?$/.test(value.trim()) ? `${value.trim()}s` : value;
}

const GLOBAL_GROUP = 'Global options:';

/** Adds the options that every command has. */
export function addGlobalOptions(command: Command): Command {
  const options = [
    new Option('--config <file>', 'read this file instead of the system and user configuration'),
    new ConfigOption('--log-level <level>', 'silent, fatal, error, warn, info, debug, trace', [
      'log',
      'level',
    ]),
    new ConfigOption('--log-format <format>', 'pretty or json', ['log', 'format']),
    new ConfigOption('--log-file <file>', 'append the log to a file instead of stderr', [
      'log',
      'file',
    ]),
    new ConfigOption('--trace <kinds>', 'full transcripts: qmp, argv, agent (with commas)', [
      'log',
      'trace',
    ]),
  ];
  for (const option of options) command.addOption(option.helpGroup(GLOBAL_GROUP));
  return command;
}

/** Adds the options that describe a new VM. */
export function addVmOptions(command: Command): Command {
  const vm = (flags: string, description: string, key: string): ConfigOption =>
    new ConfigOption(flags, description, ['vm', key]);
  return command
    .addOption(vm('--image <name>', 'image to boot (default: base)', 'image'))
    .addOption(vm('--vcpus <n>', 'virtual CPUs (default: 1)', 'vcpus'))
    .addOption(
      vm('-m, --memory <size>', 'guest memory, e.g. 512M or 2G (default: 1G)', 'memoryMib'),
    )
    .addOption(vm('--disk <size>', "size of the disk (default: the image's own)", 'diskMib'))
    .addOption(diskQuotaOption())
    .addOption(networkOption('nat-filtered on a host that is set up for it, else isolated'))
    .addOption(vm('--accel <kind>', 'auto, kvm or tcg (default: auto)', 'accel'))
    .addOption(vm('--machine <type>', 'q35 or microvm', 'machine'));
}

/** A bound on what a VM's disk takes on the host. */
export function diskQuotaOption(): ConfigOption {
  return new ConfigOption(
    '--disk-quota <size>',
    'most that its disk takes on the host, snapshots included (default: no bound)',
    ['vm', 'diskQuotaMib'],
  );
}

/** What a VM can reach. */
export function networkOption(otherwise: string): ConfigOption {
  return new ConfigOption(
    '--network <mode>',
    `isolated, nat-filtered, bridge=NAME, or user, which filters nothing (default: ${otherwise})`,
    ['vm', 'network'],
  );
}

/** Adds the option that names it. */
export function addNameOption(command: Command): Command {
  return command.option('--name <name>', 'name of the VM');
}

/** Adds the options that describe a command in the guest. */
export function addExecOptions(command: Command): Command {
  return command
    .option('-e, --env <name[=value]>', 'set a variable, or pass it on from here', collect)
    .option('--env-file <file>', 'read variables from a file (NAME=value lines)', collect)
    .addOption(
      new ConfigOption('-w, --workdir <dir>', 'working directory in the guest', [
        'exec',
        'workdir',
      ]),
    )
    .addOption(
      new ConfigOption('-u, --user <user>', 'user in the guest, by name or uid', ['exec', 'user']),
    )
    .addOption(
      new ConfigOption(
        '--timeout <time>',
        'kill the command after this time, e.g. 90s, 5m (exit code 124)',
        ['exec', 'timeoutMs'],
        seconds,
      ),
    )
    .option('--no-stdin', 'give the command an empty stdin');
}

/** For an option that may be given several times. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** Reads a number from 1 to this. */
export function wholeNumberTo(max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new InvalidArgumentError(`give a whole number from 1 to ${max}.`);
  };
}

/** The settings given on the command line, by the command and its parents. */
export function collectFlags(command: Command): FlagValue[] {
  const values: FlagValue[] = [];
  // The nearest command comes last and wins.
  if (command.parent !== null) values.push(...collectFlags(command.parent));
  for (const option of command.options) {
    if (!(option instanceof ConfigOption)) continue;
    const name = option.attributeName();
    if (command.getOptionValueSource(name) !== 'cli') continue;
    const value = option.setting(command.getOptionValue(name));
    values.push({ path: option.path, value, flag: option.long ?? option.flags });
  }
  return values;
}
