/**
 * A VM of ours on KVM and vhost-vsock, seen from outside: by QMP, by the kernel, and by a second
 * QEMU that wants the same CID. The e2e suite, which runs in the lab too, covers what VMs do.
 */
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SCALE } from '../scale.ts';

const COMMAND = 'dist/src/cli/main.js';
const NAME = 'lab-kvm-vsock';
/** A boot takes one to four minutes here. */
const READY_MS = 360_000;
/** Emulated SVM loses an interrupt now and then, and a guest hangs: not what is tested here. */
const ATTEMPTS = 3;

interface Inspected {
  accel: string;
  channel: string;
  cid: number;
  pid: number;
  argv: string[];
}

function qmpAgent(...args: string[]) {
  return execa(process.execPath, [COMMAND, ...args], {
    reject: false,
    timeout: 120_000 * SCALE,
    env: { NO_COLOR: '1', QMP_AGENT_VM_READY_TIMEOUT_MS: String(READY_MS) },
  });
}

describe('a VM on KVM and vhost-vsock', () => {
  let vm: Inspected;

  beforeAll(async () => {
    let created = await qmpAgent('create', '--name', NAME);
    for (let attempt = 1; created.exitCode !== 0 && attempt < ATTEMPTS; attempt += 1)
      created = await qmpAgent('create', '--name', NAME);
    expect(created.exitCode, created.stderr).toBe(0);
    const inspected = await qmpAgent('inspect', NAME, '--json');
    const parsed = JSON.parse(inspected.stdout) as Inspected | Inspected[];
    vm = Array.isArray(parsed) ? parsed[0]! : parsed;
  });

  afterAll(async () => {
    await qmpAgent('remove', '--force', NAME);
  });

  test('takes both without being told', () => {
    expect(vm).toMatchObject({ accel: 'kvm', channel: 'vsock' });
    expect(vm.argv.join(' ')).toMatch(/-cpu host/);
    expect(vm.argv.join(' ')).toMatch(/vhost-vsock-(?:pci|device)/);
  });

  test('QEMU says that KVM is enabled', async () => {
    const reply = await qmpAgent('qmp', NAME, 'query-kvm');
    expect(reply.exitCode, reply.stderr).toBe(0);
    expect(JSON.parse(reply.stdout)).toMatchObject({ enabled: true, present: true });
  });

  test('its CID is taken: a second QEMU cannot have it', async () => {
    expect(vm.cid).toBeGreaterThan(2);
    const second = await execa(
      'qemu-system-x86_64',
      [
        ...[
          '-nodefaults',
          '-no-user-config',
          '-display',
          'none',
          '-S',
          '-machine',
          'q35,accel=tcg',
        ],
        ...['-device', `vhost-vsock-pci,guest-cid=${vm.cid}`],
      ],
      { reject: false, timeout: 20_000 * SCALE },
    );
    expect(second.timedOut).toBe(false);
    expect(second.stderr).toMatch(/guest cid.*in use|Address already in use/i);
  });

  test('the guest sees KVM, and answers over vsock', async () => {
    const seen = await qmpAgent('exec', NAME, '--', 'cat', '/sys/hypervisor/type', '/proc/cpuinfo');
    expect(seen.stdout).toMatch(/hypervisor/);
    const ports = await qmpAgent(
      'exec',
      NAME,
      '--',
      'sh',
      '-c',
      'ls /dev/virtio-ports /dev/vport* 2>&1',
    );
    expect(ports.stdout).not.toMatch(/org\.qmp-agent/);
  });
});
