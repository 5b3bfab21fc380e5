/** What the lab is for: the host's features that a plain test machine lacks are really there. */
import { access, constants, readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';

describe('the lab', () => {
  test.each(['/dev/kvm', '/dev/vhost-vsock', '/dev/net/tun'])('has %s', async (path) => {
    await access(path, constants.R_OK | constants.W_OK);
  });

  test('has cgroups v2 with the controllers that limits need', async () => {
    const controllers = await readFile('/sys/fs/cgroup/cgroup.controllers', 'utf8');
    expect(controllers.trim().split(' ')).toEqual(
      expect.arrayContaining(['cpu', 'io', 'memory', 'pids']),
    );
  });

  test('has QEMU 10', async () => {
    const { stdout } = await execa('qemu-system-x86_64', ['--version']);
    expect(stdout).toMatch(/^QEMU emulator version 10\./);
  });
});
