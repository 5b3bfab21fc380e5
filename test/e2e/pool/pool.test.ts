/** A pool of real VMs: who comes next sees nothing of who was there before. */
import { randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa, type ResultPromise } from 'execa';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { QmpClient } from '../../../qmp/index.ts';
import { events, type EventOf, type SystemEvent } from '../../../src/events.ts';
import { VmPool, type VmLease } from '../../../src/pool/index.ts';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { expectNothingLeft, processesOf, started } from '../cli/host.ts';
import { BOOT_MS, failureOf, qemuPid, useTestState } from '../vm/state.ts';

const MEMORY_MIB = 512;
/** Two VMs boot at once. */
const READY_MS = 3 * BOOT_MS;
/** What a user of a pool may have to wait for: a boot, on two cores that boot another one. */
const WAIT = { timeout: READY_MS, interval: 100 };

const state = useTestState();
const seen: SystemEvent[] = [];
const vmOptions = () => ({ paths: state.paths, memoryMib: MEMORY_MIB, timeoutMs: BOOT_MS });
const removals = (vmId: string) =>
  seen
    .filter((event): event is EventOf<'pool.vm-removed'> => event.type === 'pool.vm-removed')
    .filter((event) => event.vmId === vmId)
    .map(({ reason }) => reason);
/** All of a guest's memory, as QEMU has it. */
async function memoryOf(id: string): Promise<Buffer> {
  const path = join(state.box.dir, `${id}.ram`);
  await using vm = await Vm.connect(id, state);
  await using qmp = await QmpClient.connect({ path: vm.monitorPath });
  await qmp.execute('pmemsave', { val: 0, size: MEMORY_MIB * 2 ** 20, filename: path });
  try {
    return await readFile(path);
  } finally {
    await rm(path);
  }
}

beforeAll(() => {
  events.subscribe((event) => seen.push(event));
});

describe('a pool whose VMs are reset in place', () => {
  let pool: VmPool;
  const idle = (count: number) => vi.waitFor(() => expect(pool.stats().idle).toBe(count), WAIT);

  beforeAll(async () => {
    pool = await VmPool.create({
      name: 'in-place',
      vm: vmOptions(),
      maxSize: 2,
      timeoutMs: READY_MS,
      prepare: async (vm) => {
        await vm.commands.run('echo prepared > ~/kept');
      },
    });
  }, READY_MS + BOOT_MS);
  afterAll(() => pool.close());

  it('gives the next user of a VM nothing of the last one', async () => {
    const secret = randomBytes(16).toString('hex');
    const first = await pool.acquire();
    const { id } = first.vm;
    expect(pool.stats()).toMatchObject({ hits: 1, misses: 0, leased: 1 });
    const { commands } = first.vm;
    const asRoot = { user: 'root' };
    await commands.run(
      `cat ~/kept && for d in ~ /tmp /var/tmp /dev/shm; do cat > $d/secret <<< ${secret}; done`,
    );
    await commands.run(
      `echo ${secret} >> ~/.bash_history; echo export S=${secret} >> ~/.profile; sync`,
    );
    await commands.run(`cat > /root/secret; hostname x${secret.slice(0, 8)}`, {
      ...asRoot,
      stdin: secret,
    });
    await commands.run(`echo ${secret} > /dev/console`, asRoot);
    const left = await commands.run(
      ['python3', '-c', 'import sys, time; s = sys.argv[1] * 1000; time.sleep(9999)', secret],
      {
        background: true,
        envs: { S: secret },
        timeoutMs: 0,
      },
    );
    expect((await memoryOf(id)).includes(secret)).toBe(true);
    await vi.waitFor(async () => expect(await first.vm.logs()).toContain(secret), WAIT);
    const interrupted = failureOf(left.wait());
    const before = pool.stats().resets;
    await first.release();
    expect(await interrupted).toMatchObject({ code: 'ERR_VM_RESTORED' });
    await vi.waitFor(() => expect(pool.stats().resets).toBe(before + 1), WAIT);

    await using second = await pool.acquire();
    expect(second.vm.id).toBe(id); // or there is nothing to see here
    const run = async (command: string, user = 'root') =>
      (await second.vm.commands.run(command, { user })).stdout;
    expect((await memoryOf(id)).includes(secret)).toBe(false);
    expect(await second.vm.logs()).not.toContain(secret);
    expect(await run('cat ~/kept', 'agent')).toBe('prepared\n');
    const files =
      'ls -d /home/agent/secret /tmp/secret /var/tmp/secret /dev/shm/secret /root/secret /home/agent/.bash_history 2>/dev/null || true';
    expect(await run(files)).toBe('');
    const secrets = await run(
      'cat /home/agent/.profile; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr "\\0" "\\n"; hostname',
    );
    expect(secrets).not.toContain(secret.slice(0, 8));
    expect(await second.vm.commands.list()).toEqual([]);

    // Who was there before has no hand in it any more.
    for (const call of [
      () => commands.run('true'),
      () => left.kill(),
      () => first.vm.commands.list(),
      () => first.vm.snapshots.list(),
    ]) {
      expect(await failureOf((async () => call())())).toMatchObject({
        code: 'ERR_POOL_LEASE',
        vmId: id,
      });
    }
    expect((await second.vm.commands.run('echo untouched')).stdout).toBe('untouched\n');
  });

  it('throws away what no reset undoes', async () => {
    await idle(2);
    const [keeps, saves] = await Promise.all([pool.acquire(), pool.acquire()]);
    (await keeps.vm.console()).on('error', () => undefined);
    await saves.vm.snapshots.create('mine');
    await Promise.all([keeps.release(), saves.release()]);
    await vi.waitFor(() => {
      expect(removals(keeps.vm.id)).toEqual(['unclean']);
      expect(removals(saves.vm.id)).toEqual(['reset-failed']);
    }, WAIT);
    await idle(2);
    const leases = await Promise.all([pool.acquire(), pool.acquire()]);
    for (const { vm } of leases) {
      expect([keeps.vm.id, saves.vm.id]).not.toContain(vm.id);
      expect((await vm.snapshots.list()).map(({ name }) => name)).toEqual(['pool-clean']);
    }
    await Promise.all(leases.map((lease) => lease.release()));
  });

  it('replaces a VM that was killed, idle or leased', async () => {
    await idle(2);
    const lease = await pool.acquire();
    const other = await pool.acquire();
    await other.release();
    await idle(1);
    const waiting = failureOf(lease.vm.commands.run('sleep 9999', { timeoutMs: 0 }));
    process.kill(await qemuPid(lease.vm), 'SIGKILL');
    process.kill(await qemuPid(await Vm.connect(other.vm.id, state)), 'SIGKILL');
    expect(await waiting).toMatchObject({ code: 'ERR_VM_DIED' });
    await vi.waitFor(() => {
      expect(removals(lease.vm.id)).toEqual(['died']);
      expect(removals(other.vm.id)).toEqual(['died']);
    }, WAIT);
    await lease.release();
    await using next = await pool.acquire();
    expect([lease.vm.id, other.vm.id]).not.toContain(next.vm.id);
    expect((await next.vm.commands.run('echo alive')).stdout).toBe('alive\n');
  });

  it('serves who came first, and lets go of who does not wait', async () => {
    await idle(2);
    const held = [await pool.acquire(), await pool.acquire()] as const;
    const order: string[] = [];
    const line = (name: string, o = {}) =>
      pool.acquire(o).then((lease: VmLease) => {
        order.push(name);
        return lease;
      });
    const abort = new AbortController();
    const aborted = failureOf(line('aborted', { signal: abort.signal }));
    const tooLate = failureOf(line('too late', { timeoutMs: 50 }));
    const [one, two] = [line('one'), line('two')];
    expect(pool.stats()).toMatchObject({ leased: 2, waiting: 4, idle: 0 });
    abort.abort(new Error('changed my mind'));
    expect(await aborted).toMatchObject({ message: 'changed my mind' });
    expect(await tooLate).toMatchObject({ code: 'ERR_POOL_TIMEOUT', timeoutMs: 50 });
    await held[0].release();
    const first = await one;
    await held[1].destroy();
    expect(removals(held[1].vm.id)).toEqual(['destroyed']);
    const second = await two;
    expect(order).toEqual(['one', 'two']);
    await Promise.all([first.release(), second.release()]);
  });

  it('leaves other pools the memory that it was not promised', async () => {
    const tooMany = failureOf(
      VmPool.create({ vm: { ...vmOptions(), memoryMib: 8_192 }, maxSize: 1_000 }),
    );
    expect(await tooMany).toMatchObject({
      code: 'ERR_POOL_MEMORY',
      field: 'pool.maxSize',
      value: 1_000,
      hint: expect.stringMatching(/^(Lower maxSize to \d+|Free memory)/),
    });
  });

  it('is drained: who has a VM may end, nobody else gets one, and nothing is left', async () => {
    await idle(2);
    const lease = await pool.acquire();
    const drained = pool.drain({ timeoutMs: READY_MS });
    expect(await failureOf(pool.acquire())).toMatchObject({ code: 'ERR_POOL_CLOSED' });
    expect((await lease.vm.commands.run('echo still here')).stdout).toBe('still here\n');
    await lease.release();
    await drained;
    expect(pool.stats()).toMatchObject({ size: 0, idle: 0, leased: 0, making: 0, resetting: 0 });
    await expectNothingLeft(state.box);
  });
});

describe('a pool whose VMs are used once', () => {
  it('makes another one for each user, and leaves nothing when it is closed', async () => {
    const pool = await VmPool.create({
      strategy: 'recreate',
      vm: vmOptions(),
      maxSize: 2,
      timeoutMs: READY_MS,
    });
    const first = await pool.acquire();
    await first.vm.commands.run('echo used > ~/used');
    await first.release();
    const second = await pool.acquire({ timeoutMs: READY_MS });
    expect(second.vm.id).not.toBe(first.vm.id);
    expect((await second.vm.commands.run('ls ~')).stdout).not.toContain('used');
    expect(removals(first.vm.id)).toEqual(['used']);
    const interrupted = failureOf(second.vm.commands.run('sleep 9999', { timeoutMs: 0 }));
    const closing = pool.close();
    expect(pool.close()).toBe(closing);
    await closing;
    expect(await interrupted).toMatchObject({ vmId: second.vm.id });
    await expectNothingLeft(state.box);
  });
});

describe('a pool of clones', () => {
  it('has a machine of its own for each user, and replaces one that was killed', async () => {
    await createTemplate('clean', vmOptions());
    const pool = await VmPool.create({
      template: 'clean',
      vm: { paths: state.paths, timeoutMs: BOOT_MS },
      minSize: 2,
      maxSize: 3,
      timeoutMs: READY_MS,
    });
    const ids = new Set<string>();
    const drawn = new Set<string>();
    const secret = randomBytes(16).toString('hex');
    for (let user = 0; user < 6; user += 1) {
      await using lease = await pool.acquire({ timeoutMs: READY_MS });
      const { id, commands } = lease.vm;
      const command = 'cat ~/secret 2>/dev/null; head -c 16 /dev/urandom | od -An -tx1';
      ids.add(id);
      drawn.add((await commands.run(command)).stdout);
      expect((await memoryOf(id)).includes(secret)).toBe(false);
      await commands.run('cat > ~/secret', { stdin: secret });
    }
    expect([ids.size, drawn.size]).toEqual([6, 6]);
    expect([...drawn].join()).not.toContain(secret);
    await vi.waitFor(() => expect(pool.stats().idle).toBeGreaterThanOrEqual(2), WAIT);
    const [idle] = [await pool.acquire()];
    process.kill(await qemuPid(idle.vm), 'SIGKILL');
    await vi.waitFor(() => expect(removals(idle.vm.id)).toEqual(['died']), WAIT);
    await using next = await pool.acquire({ timeoutMs: READY_MS });
    expect((await next.vm.commands.run('echo alive')).stdout).toBe('alive\n');
    await pool.close();
    await new TemplateStore(state.paths).remove('clean'); // nobody stands on it any more
  });

  it('needs a template that there is', async () => {
    const options = { template: 'none', vm: { paths: state.paths } };
    expect(await failureOf(VmPool.create(options))).toMatchObject({ code: 'ERR_NOT_FOUND' });
  });
});

describe('a pool whose process is killed', () => {
  it('leaves no QEMU, and the next look at the VMs takes its files away', async () => {
    const [index, tsx] = ['src/index.ts', 'node_modules/tsx/dist/esm/index.mjs'].map((path) =>
      fileURLToPath(new URL(`../../../${path}`, import.meta.url)),
    );
    const program = `
      import { VmPool } from ${JSON.stringify(index)};
      const pool = await VmPool.create({ vm: ${JSON.stringify(vmOptions())}, maxSize: 2 });
      await pool.acquire();
      console.log('ready');
      setInterval(() => undefined, 1_000);
    `;
    const args = ['--import', tsx!, '--input-type=module', '--eval', program];
    const owner = execa(process.execPath, args, { reject: false, stdin: 'ignore' });
    await started(owner as unknown as ResultPromise);
    const vms = await Vm.list(state);
    expect(vms.map(({ ownerPid }) => ownerPid)).toContain(owner.pid);
    owner.kill('SIGKILL');
    await owner;
    await vi.waitFor(async () => expect(await processesOf(state.box)).toEqual([]), WAIT);
    expect(await Vm.list(state)).toEqual([]);
    // One that was just being made may have no record yet: that is for gc, which gives it ten seconds.
    await vi.waitFor(async () => {
      await Vm.gc(state);
      await expectNothingLeft(state.box);
    }, WAIT);
  });
});
