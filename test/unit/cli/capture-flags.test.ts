import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import {
  addPcapOptions,
  pcapFlags,
  refusePcap,
  type PcapFlags,
} from '../../../src/cli/capture-flags.ts';

const parse = (...args: string[]) =>
  pcapFlags(
    addPcapOptions(new Command().exitOverride().configureOutput({ writeErr: () => undefined }))
      .parse(args, { from: 'user' })
      .opts<PcapFlags>(),
  );

describe('flags of a capture', () => {
  it.each([
    [[], undefined],
    [['--pcap', 'x'], { file: 'x', maxBytes: undefined }],
    [['--pcap', 'x', '--pcap-max-size', '64k'], { file: 'x', maxBytes: 65_536 }],
    [['--pcap', 'x', '--pcap-max-size', '1.5MiB'], { file: 'x', maxBytes: 1_572_864 }],
    [['--pcap', 'x', '--pcap-max-size', '5000'], { file: 'x', maxBytes: 5000 }],
  ])('%j', (args, options) => {
    expect(parse(...args)).toEqual(options);
  });

  it.each(['', 'lots', '-1', '1.5', '0x10'])('refuses the size %j', (size) => {
    expect(() => parse('--pcap', 'x', '--pcap-max-size', size)).toThrow('give a size');
  });

  it('refuses a bound of nothing', () => {
    expect(() => parse('--pcap-max-size', '1G')).toThrow('goes with --pcap');
  });

  it('tells who makes a VM that stays how it is captured, and has no such flag in the help', () => {
    const create = refusePcap(new Command('create').exitOverride());
    expect(() => create.parse(['--pcap', 'x'], { from: 'user' })).toThrow(
      expect.objectContaining({
        code: 'ERR_CONFIG',
        hint: expect.stringContaining('qmp-agent net capture VM -o FILE') as string,
      }) as Error,
    );
    expect(create.helpInformation()).not.toContain('pcap');
  });
});
