/** Deaths: of QEMU, of the guest's kernel, of its agent. What waits is told at once, by name. */
import { access } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  CommandExitError,
  GuestDisconnectedError,
  GuestPanicError,
  HostError,
  VmDiedError,
} from '../../../src/errors.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { expectNothingLeft } from '../cli/host.ts';
import { failureOf, qemuPid, useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** From a death to the error of whatever waits. */
const AT_ONCE_MS = 3_000 * SCALE;
/** From the death of an agent to the first answer of the next: the init waits a second, Node starts. */
const NEXT_AGENT_MS = 25_000 * SCALE;

const state = useTestState();
const hasVsock = await access('/dev/vhost-vsock').then(
  () => true,
  () => false,
);

/** What calls of all kinds are told when something dies under them. */
async function deathOf(vm: Vm, kill: () => Promise<unknown>): Promise<Error[]> {
  const handle = await vm.commands.run('sleep 700', { background: true, timeoutMs: 0 });
  const waiting = [
    failureOf(handle.wait()),
    failureOf(vm.commands.run('echo begun; sleep 701', { timeoutMs: 0 })),
    failureOf(vm.commands.run('cat > /dev/null', { stdin: true, timeoutMs: 0 })),
  ];
  await expect.poll(() => vm.commands.list(), { timeout: AT_ONCE_MS }).toHaveLength(3);
  const startedAt = performance.now();
  await kill();
  const errors = await Promise.all(waiting);
  expect(performance.now() - startedAt).toBeLessThan(AT_ONCE_MS);
  return errors;
}

describe('a guest', () => {
  let vm: Vm;
  beforeAll(async () => {
    vm = await state.create();
  });
  afterAll(() => vm.close()); // left there by a case that fails, it would fail all that come later
  const root = (script: string) => vm.commands.run(script, { user: 'root' });

  it('whose disk is full says so to the command, and lives on', async () => {
    const fill = `set -e; cd; while n=$(df --output=avail -B1M . | tail -1) && [ $n -gt 8 ]; do
      fallocate -l $((n - 4))M fill-$n; done; dd if=/dev/zero of=rest bs=64k`;
    const error = await failureOf(vm.commands.run(fill));
    expect(error).toBeInstanceOf(CommandExitError);
    expect((error as CommandExitError).stderr).toContain('No space left on device');
    expect(vm.fault.aborted).toBe(false);
    expect(await vm.commands.run('echo alive; df --output=avail . | tail -1')).toMatchObject({
      stdout: expect.stringMatching(/^alive\n\s*0\n$/),
    });
    await vm.commands.run('rm fill-* rest && echo space > again && cat again');
  });

  it('whose agent is killed: calls are told, the next ones find the next agent', async () => {
    const errors = await deathOf(vm, () => failureOf(root('kill -9 $(pgrep -x qmp-agent)')));
    for (const error of errors) {
      expect(error).toBeInstanceOf(GuestDisconnectedError);
      expect(error).toMatchObject({ code: 'ERR_GUEST_DISCONNECTED', vmId: vm.id });
      expect((error as GuestDisconnectedError).hint).toMatch(/agent/);
    }
    expect(vm.state).toBe('running');
    const startedAt = performance.now();
    const o = { requestTimeoutMs: NEXT_AGENT_MS };
    expect((await vm.commands.run('echo back', o)).stdout).toBe('back\n');
    expect(performance.now() - startedAt).toBeLessThan(NEXT_AGENT_MS);
    // What the dead agent ran has no owner any more.
    const sleeps = 'cat /proc/[0-9]*/comm 2>/dev/null | grep -cx sleep; true';
    expect((await vm.commands.run(sleeps)).stdout).toBe('0\n');
    await expect.poll(() => vm.logs()).toContain('the agent ended, starts again');
  });

  it('that has lost its agent: who gives up waiting for the next does not end others’ wait', async () => {
    await failureOf(root('kill -9 $(pgrep -x qmp-agent)'));
    const hurried = failureOf(vm.commands.run('true', { signal: AbortSignal.timeout(50) }));
    const patient = vm.commands.run('echo patient', { requestTimeoutMs: 2 * NEXT_AGENT_MS });
    const bounded = failureOf(vm.commands.run('true', { requestTimeoutMs: 60 }));
    expect((await hurried).name).toBe('TimeoutError');
    expect(await bounded).toMatchObject({ code: 'ERR_TIMEOUT' });
    expect((await patient).stdout).toBe('patient\n');
  });

  it('whose kernel panics: every call has the panic’s text', async () => {
    const errors = await deathOf(vm, () => failureOf(root('echo c > /proc/sysrq-trigger')));
    for (const error of errors) {
      expect(error).toBeInstanceOf(GuestPanicError);
      expect(error).toMatchObject({
        code: 'ERR_GUEST_PANIC',
        vmId: vm.id,
        message: expect.stringContaining('Kernel panic - not syncing: sysrq triggered crash'),
        panic: expect.stringContaining('Call Trace'),
        hint: expect.stringContaining('console'),
      });
    }
    expect(await failureOf(vm.commands.run('true'))).toBeInstanceOf(GuestPanicError);
    expect(await vm.waitForState('stopped', { timeoutMs: AT_ONCE_MS })).toBe('stopped');
    expect(vm.fault.reason).toBeInstanceOf(GuestPanicError);
    await vm.close();
    await vm.close();
    expect(vm.state).toBe('removed');
    await expectNothingLeft(state.box);
  });
});

describe('another guest', () => {
  let vm: Vm;
  beforeAll(async () => {
    vm = await state.create({ machine: 'microvm', vcpus: 2, cid: hasVsock ? 4_711 : undefined });
  });
  afterAll(() => vm.close());

  it('runs on the machine that was asked for', async () => {
    const facts = await vm.commands.run('nproc; ls -d /sys/bus/pci/devices/* 2>/dev/null | wc -l');
    expect(facts.stdout).toBe('2\n0\n');
    expect(await vm.info()).toMatchObject({ machine: 'microvm', vcpus: 2 });
  });

  it('has a CID that no other can have', async (ctx) => {
    ctx.skip(!hasVsock, 'no /dev/vhost-vsock');
    const error = await failureOf(state.create({ cid: 4_711 }));
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ code: 'ERR_HOST_VSOCK' });
    expect(error.message).toContain('4711 is taken');
    expect((error as HostError).hint).toMatch(/free one/);
  });

  it('panics without a device to report it, and is noticed by its console', async () => {
    const errors = await deathOf(vm, () =>
      failureOf(vm.commands.run('echo c > /proc/sysrq-trigger', { user: 'root' })),
    );
    for (const error of errors) expect(error).toBeInstanceOf(GuestPanicError);
    await vm.close();
    await expectNothingLeft(state.box);
  });
});

describe('QEMU', () => {
  let vm: Vm;
  beforeAll(async () => {
    vm = await state.create({ vcpus: 2 });
  });
  afterAll(() => vm.close());

  it('with several emulated processors works', async () => {
    expect((await vm.commands.run('nproc')).stdout).toBe('2\n');
  });

  it('killed while commands run: each is told, soon', async () => {
    const pid = await qemuPid(vm);
    const errors = await deathOf(vm, () => Promise.resolve(process.kill(pid, 'SIGKILL')));
    for (const error of errors) {
      expect(error).toBeInstanceOf(VmDiedError);
      expect(error).toMatchObject({
        code: 'ERR_VM_DIED',
        vmId: vm.id,
        message: expect.stringContaining('QEMU was ended by SIGKILL'),
        hint: expect.stringContaining('dmesg'),
      });
    }
    const startedAt = performance.now();
    for (const call of [
      () => vm.commands.run('true'),
      () => vm.commands.list(),
      () => vm.guest(),
      () => vm.pause(),
      () => vm.resume(),
      () => vm.console(),
    ]) {
      const error = await failureOf(call());
      expect((error as VmDiedError).code).toMatch(/ERR_VM_DIED|ERR_STATE/);
    }
    await vm.stop();
    await vm.kill();
    expect(performance.now() - startedAt).toBeLessThan(AT_ONCE_MS);
    expect(await vm.waitForState('stopped')).toBe('stopped');
    await vm.close();
    await expectNothingLeft(state.box);
  });
});
