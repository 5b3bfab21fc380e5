/** Flags of what captures packets. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { parseBytes } from '../config/units.ts';
import { ConfigError } from '../errors.ts';
import type { CaptureOptions } from '../network/index.ts';

/** As commander gives them. */
export interface PcapFlags {
  pcap?: string;
  pcapMaxSize?: number;
}

/** Of a VM that lives as long as the command. */
export function addPcapOptions(command: Command): Command {
  return command
    .optionsGroup('Capture of its packets:')
    .option('--pcap <file>', 'write all packets from its first one on to this new file')
    .option(
      '--pcap-max-size <size>',
      'end the capture there, e.g. 1G (default: 100M); the VM goes on',
      readSize,
    );
}

/** What they ask for; undefined: none was given. @throws ConfigError a bound of nothing */
export function pcapFlags({ pcap: file, pcapMaxSize: maxBytes }: PcapFlags) {
  if (file !== undefined) return { file, maxBytes } satisfies CaptureOptions;
  if (maxBytes === undefined) return undefined;
  throw new ConfigError('--pcap-max-size goes with --pcap', {
    ...{ field: '--pcap-max-size', value: maxBytes },
    hint: 'Name the file, e.g. --pcap first.pcap.',
  });
}

/**
 * A VM that outlives the command would have nobody who captures: one who tries what `run` has is told what to do
 * instead. Not in the help.
 */
export function refusePcap(command: Command): Command {
  const option = new Option('--pcap <file>').hideHelp().argParser((file: string) => {
    throw new ConfigError('the VM outlives this command, which would have to capture', {
      ...{ field: '--pcap', value: file },
      hint: 'Capture while it runs: qmp-agent net capture VM -o FILE. From the first packet on: qmp-agent run --pcap FILE.',
    });
  });
  return command.addOption(option);
}

/** As 64K, 100m, 1G; bytes where there is no unit. */
export function readSize(text: string): number {
  const bytes = parseBytes(text);
  if (bytes !== undefined) return bytes;
  throw new InvalidArgumentError('give a size, as 64K, 100m or 1G.');
}
