/**
 * Clones: machines of their own, from one frozen instant. In the lab too, where they run on KVM with
 * vhost-vsock; what templates are on disk is for `templates.test.ts`.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VmCloneOptions } from '../../../src/vm/api.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { SCALE } from '../../scale.ts';
import { clockOffMs } from './guest-time.ts';
import { BOOT_MS, useTestState } from './state.ts';

/** How far a clock may be off that was set right: the way there, on a busy machine. */
const CLOCK_MS = 2_000 * SCALE;
/** How long a clone is kept standing, */
const STOOD_MS = 2_000 * SCALE;
/** and from the vCPUs' stop or start to the answer of the call, and to a clock that is set. */
const EDGE_MS = 600 * SCALE;
/** In the lab each is emulated twice over. */
const CLONES = SCALE > 1 ? 2 : 3;
/**
 * Notes again and again which boot it is in, and when: runs in the template, and on in each clone. In the lab its two
 * processes would take all of the processor, were they started as often.
 */
const WITNESS = `nohup sh -c 'while :; do echo "$(date +%s%3N) $(cat /proc/sys/kernel/random/boot_id)"; sleep ${0.05 * SCALE ** 2}; done' > /tmp/witness 2>&1 &`;

const state = useTestState();
let store: TemplateStore;

const clone = (o: VmCloneOptions = {}) =>
  Vm.fromTemplate('plain', { paths: state.paths, timeoutMs: BOOT_MS, ...o });
const out = async (vm: Vm, command: string): Promise<string> =>
  (await vm.commands.run(command, { timeoutMs: BOOT_MS })).stdout.trim();
const hashOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
};

beforeAll(async () => {
  store = new TemplateStore(state.paths);
  await createTemplate('plain', {
    ...{ paths: state.paths, timeoutMs: BOOT_MS, memoryMib: 512 },
    provision: 'echo provisioned by $(id -un) > /var/tmp/provisioned',
    warm: `${WITNESS} python3 -c 0`,
  });
});

afterAll(() => store.remove('plain'));

describe('a clone', () => {
  it('is a machine of its own, and the template stays as it is', async () => {
    const dir = store.dirOf('plain');
    const files = [join(dir, 'memory'), join(dir, 'disk.qcow2')];
    const before = await Promise.all(files.map(hashOf));
    const facts = async (vm: Vm) => {
      const lines = await out(
        vm,
        'hostname; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | od -An -tx1 -w32; cat /proc/sys/kernel/random/uuid; python3 -c "import os; print(os.getrandom(16).hex())"',
      );
      return { lines: lines.split('\n'), offMs: await clockOffMs(vm) };
    };
    const vms = await Promise.all(Array.from({ length: CLONES }, () => clone()));
    try {
      const all = await Promise.all(vms.map(facts));
      for (const [index, { lines, offMs }] of all.entries()) {
        expect(lines.slice(0, 2)).toEqual([vms[index]?.id, vms[index]?.id]);
        expect(offMs).toBeLessThan(CLOCK_MS);
      }
      const distinct = new Set(all.flatMap(({ lines }) => lines.slice(1)));
      expect(distinct.size).toBe(CLONES * 6);
      for (const vm of vms) {
        expect(await out(vm, 'cat /var/tmp/provisioned')).toBe('provisioned by root');
        await vm.commands.run('head -c 4M /dev/zero | tr \\\\0 x > /var/tmp/junk; sync', {
          user: 'root',
          timeoutMs: 0,
        });
      }
      expect([...(await store.inspect('plain')).usedBy].sort()).toEqual(
        vms.map(({ id }) => id).sort(),
      );
    } finally {
      await Promise.all(vms.map((vm) => vm.close()));
    }
    expect(await Promise.all(files.map(hashOf))).toEqual(before);
  });

  it('is one before anything that ran in the template goes on', async () => {
    const called = Date.now();
    await using vm = await clone();
    const own = await out(vm, 'cat /proc/sys/kernel/random/boot_id');
    await out(vm, `until [ "$(grep -c ${own} /tmp/witness)" -gt 1 ]; do sleep 0.1; done`);
    const notes = (await out(vm, 'cat /tmp/witness')).split('\n').map((line) => line.split(' '));
    const later = notes.filter(([ms]) => Number(ms) >= called);
    expect(later.length).toBeGreaterThan(1);
    expect(new Set(later.map(([, id]) => id))).toEqual(new Set([own]));
    expect(notes.some(([, id]) => id !== own)).toBe(true); // it did run in the template
  });

  it('can be kept ready, paused: it stands still until it is resumed, and knows the time then', async () => {
    await using vm = await clone({ paused: true });
    expect(vm.state).toBe('paused');
    const stoodFrom = Date.now();
    await delay(STOOD_MS);
    const stoodUntil = Date.now();
    await vm.resume();
    expect(await clockOffMs(vm)).toBeLessThan(CLOCK_MS);
    let times: number[] = [];
    const goesOn = async () => {
      times = (await out(vm, 'cat /tmp/witness')).split('\n').map((line) => Number.parseInt(line));
      return times.some((ms) => ms >= stoodUntil);
    };
    await expect.poll(goesOn, { timeout: 15_000 * SCALE }).toBe(true);
    const inThePause = times.filter((ms) => ms > stoodFrom + EDGE_MS && ms < stoodUntil - EDGE_MS);
    expect(inThePause).toEqual([]);
  });

  it('can be taken from snapshot to snapshot like any VM', async () => {
    await using vm = await clone();
    await vm.commands.run('echo one > /var/tmp/n');
    await vm.snapshots.create('one');
    await vm.commands.run('echo two > /var/tmp/n');
    await vm.snapshots.restore('one');
    expect(await out(vm, 'cat /var/tmp/n')).toBe('one');
  });
});
