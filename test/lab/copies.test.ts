/**
 * Copies of machines on KVM, vhost-vsock and the newest QEMU: forks, snapshots in place, memory on disk, and
 * pools of clones. What each of them promises in full is for the e2e suite, on software emulation; the
 * clones' own file runs here, too.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmPool } from '../../src/pool/index.ts';
import { createTemplate } from '../../src/vm/template/create.ts';
import { TemplateStore } from '../../src/vm/template/store.ts';
import { Vm } from '../../src/vm/vm.ts';
import { clockOffMs } from '../e2e/vm/guest-time.ts';
import { BOOT_MS, useTestState } from '../e2e/vm/state.ts';
import { SCALE } from '../scale.ts';

const TEMPLATE = 'lab';
/** What two machines must not share. */
const OWN =
  'hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid';
/** Of the slowest call here. */
const CALL_MS = 60_000 * SCALE;

const state = useTestState();
const vmOptions = () => ({ paths: state.paths, timeoutMs: BOOT_MS });
const out = async (vm: Vm, command: string): Promise<string> =>
  (await vm.commands.run(command, { timeoutMs: CALL_MS })).stdout.trim();

beforeAll(() => createTemplate(TEMPLATE, { ...vmOptions(), memoryMib: 512 }));
afterAll(() => new TemplateStore(state.paths).remove(TEMPLATE));

describe('a clone on KVM and vhost-vsock', () => {
  let vm: Vm;
  beforeAll(async () => {
    vm = await Vm.fromTemplate(TEMPLATE, { ...vmOptions(), persistent: true });
    expect(await vm.info()).toMatchObject({ accel: 'kvm', channel: 'vsock' });
    await out(vm, 'echo kept > /dev/shm/line');
  });
  afterAll(() => vm.remove({ force: true }));

  it('has children, and goes on with its connection unbroken', async () => {
    const handle = await vm.commands.run('read line; echo "$line"', {
      ...{ stdin: true, background: true, timeoutMs: 0 },
    });
    const [child] = await vm.fork({ timeoutMs: BOOT_MS });
    if (child === undefined) throw new Error('no child');
    try {
      const [own, childs] = [await out(vm, OWN), await out(child, OWN)].map((s) => s.split('\n'));
      expect(new Set([...(own ?? []), ...(childs ?? [])]).size).toBe(8);
      expect(await out(child, 'cat /dev/shm/line')).toBe('kept');
      expect((await child.info()).cid).not.toBe((await vm.info()).cid);
      expect(await clockOffMs(child)).toBeLessThan(2_000 * SCALE);
    } finally {
      await child.close();
    }
    await handle.sendStdin('still here\n');
    expect((await handle.wait({ timeoutMs: CALL_MS })).stdout).toBe('still here\n');
  });

  it('goes back to a snapshot twice', async () => {
    await vm.snapshots.create('one', { timeoutMs: BOOT_MS });
    for (const word of ['lost', 'again']) {
      await out(vm, `echo ${word} > /dev/shm/line; echo ${word} > /var/tmp/line`);
      await vm.snapshots.restore('one', { timeoutMs: BOOT_MS });
      expect(await out(vm, 'cat /dev/shm/line; ls /var/tmp')).toBe('kept');
    }
    expect(await clockOffMs(vm)).toBeLessThan(2_000 * SCALE);
  });

  it('is suspended to disk, and goes on from there', async () => {
    const before = await out(vm, 'cat /proc/sys/kernel/random/boot_id');
    await vm.suspend({ timeoutMs: BOOT_MS });
    expect((await vm.info()).pid).toBeUndefined();
    await vm.resume({ timeoutMs: BOOT_MS });
    expect(await out(vm, 'cat /dev/shm/line /proc/sys/kernel/random/boot_id')).toBe(
      `kept\n${before}`,
    );
    expect(await clockOffMs(vm)).toBeLessThan(2_000 * SCALE);
  });
});

describe('a pool on KVM and vhost-vsock', () => {
  it('lends VMs that nobody has used', async () => {
    await using pool = await VmPool.create({
      ...{ template: TEMPLATE, strategy: 'clone', minSize: 1, maxSize: 1 },
      vm: vmOptions(),
    });
    const ids: string[] = [];
    for (let user = 0; user < 2; user += 1) {
      await using lease = await pool.acquire({ timeoutMs: BOOT_MS });
      ids.push(lease.vm.id);
      expect(await out(lease.vm, 'ls /var/tmp; touch /var/tmp/seen')).toBe('');
    }
    expect(new Set(ids).size).toBe(2);
  });
});
