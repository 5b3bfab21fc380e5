import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { buildCmdline } from '../../../firmware/cmdline.ts';

const base = { machine: 'q35', accel: 'tcg', hostname: 'box', channel: 'virtio-serial' } as const;
const word = (line: string, name: string): string =>
  line
    .split(' ')
    .find((entry) => entry.startsWith(`${name}=`))
    ?.slice(name.length + 1) ?? '';

describe('buildCmdline', () => {
  it('names the console, what to do on a panic, and the hostname', () => {
    const line = buildCmdline(base);
    expect(line.split(' ')).toEqual(
      expect.arrayContaining(['console=ttyS0', 'panic=-1', 'quiet', 'qmp_agent.hostname=box']),
    );
  });

  it('tells a microvm under TCG, and nobody else, the rate of its time stamp counter', () => {
    const given = { ...base, tscKhz: 2_095_999 };
    expect(word(buildCmdline({ ...given, machine: 'microvm' }), 'tsc_early_khz')).toBe('2095999');
    expect(word(buildCmdline(given), 'tsc_early_khz')).toBe('');
    expect(word(buildCmdline({ ...given, machine: 'microvm', accel: 'kvm' }), 'tsc')).toBe('');
  });

  it('has the modules that the machine and its devices need', () => {
    expect(word(buildCmdline(base), 'qmp_agent.modules').split(',')).toEqual(
      expect.arrayContaining(['virtio_pci', 'virtio_blk', 'ext4', 'pvpanic_pci']),
    );
    const microvm = buildCmdline({
      ...base,
      machine: 'microvm',
      channel: 'vsock',
      modules: ['net'],
    });
    const modules = word(microvm, 'qmp_agent.modules').split(',');
    expect(modules).toEqual(
      expect.arrayContaining(['virtio_mmio', 'vmw_vsock_virtio_transport', 'virtio_net']),
    );
    expect(modules).not.toContain('virtio_pci');
    expect(modules.indexOf('virtio_mmio')).toBeLessThan(modules.indexOf('virtio_blk'));
  });

  it('leaves out the jitter generator only under emulation, whose timing is no source of chance', () => {
    const word = 'initcall_blacklist=jent_mod_init';
    expect(buildCmdline(base).split(' ')).toContain(word);
    expect(buildCmdline({ ...base, accel: 'kvm' })).not.toContain('initcall');
  });

  it('turns mitigations off only under emulation, which has nothing to leak', () => {
    expect(buildCmdline(base).split(' ')).toContain('mitigations=off');
    expect(buildCmdline({ ...base, accel: 'kvm' })).not.toContain('mitigations');
  });

  it('has programs where they are for each process only under emulation, which would translate them for each', () => {
    expect(buildCmdline(base).split(' ')).toContain('norandmaps');
    expect(buildCmdline({ ...base, accel: 'kvm' })).not.toContain('norandmaps');
  });

  it('encodes a program so that the init’s shell gets back every byte', () => {
    const argv = ['/usr/bin/printf', '%s|', `it's`, 'a  b', '$HOME;*"\\n', 'ü'];
    const encoded = word(buildCmdline({ ...base, run: argv }), 'qmp_agent.run');
    const script = 'eval "exec $(printf %b "$1")"'; // as in firmware/init/init
    const output = execFileSync('busybox', ['sh', '-c', script, 'sh', encoded], {
      encoding: 'utf8',
    });
    expect(output).toBe(`it's|a  b|$HOME;*"\\n|ü|`);
  });

  it('puts further words last, so that they win', () => {
    expect(buildCmdline({ ...base, extra: ['loglevel=8', 'x=1'] })).toMatch(/ loglevel=8 x=1$/);
  });
});
