import { describe, expect, test } from 'vitest';
import { labArgv, type LabMachine } from '../../../scripts/lab.d/machine.ts';

const machine: LabMachine = {
  root: { kernelPath: '/c/vmlinuz', initramfsPath: '/c/initramfs', diskPath: '/c/root.ext4' },
  disks: [{ path: '/c/a,b.ext4', mountPoint: '/project' }],
  jobDir: '/t/job',
  socketDir: '/t/s',
  consolePath: '/t/console.log',
  memoryMib: 2048,
  vcpus: 1,
  interactive: false,
};

describe('labArgv', () => {
  test('nothing that the lab writes reaches a cached disk', () => {
    const drives = labArgv(machine).filter((word) => word.startsWith('file='));
    expect(drives).toHaveLength(2);
    for (const drive of drives) expect(drive).toContain('snapshot=on');
  });

  test('a comma in a path is doubled', () => {
    expect(labArgv(machine).join(' ')).toContain('file=/c/a,,b.ext4,');
  });

  test('several vCPUs share one thread: kernel 6.12 panics otherwise', () => {
    expect(labArgv({ ...machine, vcpus: 2 }).join(' ')).toContain('-accel tcg,thread=single');
  });

  test('a shell has a terminal, a run has three ports', () => {
    expect(labArgv({ ...machine, interactive: true }).join(' ')).toContain('virtconsole');
    const run = labArgv(machine).join(' ');
    for (const name of ['stdout', 'stderr', 'control']) expect(run).toContain(`name=lab.${name}`);
  });
});
