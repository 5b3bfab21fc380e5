import { describe, expect, it } from 'vitest';
import type { ProcessIdentity } from '../../../src/vm/process-identity.ts';
import type { RecordedState, VmRecord } from '../../../src/vm/record.ts';
import { STATE_SCHEMA } from '../../../src/vm/state-dir.ts';
import { entryInfo, infoOf, isAbandoned, observeState } from '../../../src/vm/vm-info.ts';

const identity = (pid: number): ProcessIdentity => ({ pid, startTicks: pid, bootId: 'b' });
const starter = identity(10);
const qemu = identity(20);
const owner = identity(30);
const alive =
  (...living: ProcessIdentity[]) =>
  (one: ProcessIdentity) =>
    living.includes(one);
const paths = { dataDir: '/d', runtimeDir: '/r', cacheDir: '/c' };

function vm(state: RecordedState, o: { qemu?: ProcessIdentity; owner?: ProcessIdentity } = {}) {
  const run = { starter, qemu: o.qemu, startedAt: 't', accel: 'tcg', ports: 4 } as const;
  return {
    schema: STATE_SCHEMA,
    id: '0123456789ab',
    createdAt: 't',
    owner: o.owner,
    state,
    run,
    config: { accel: 'auto', persistent: o.owner === undefined, machine: 'q35', image: 'base' },
  } as unknown as VmRecord;
}

describe('observeState', () => {
  it.each<[string, VmRecord, ProcessIdentity[], string]>([
    ['what is written, where QEMU lives', vm('running', { qemu }), [qemu], 'running'],
    ['paused stays paused', vm('paused', { qemu }), [qemu], 'paused'],
    ['a start under way', vm('starting', { qemu }), [qemu, starter], 'starting'],
    ['a start whose QEMU is about to be spawned', vm('starting'), [starter], 'starting'],
    ['a start whose process died: the guest comes up', vm('starting', { qemu }), [qemu], 'running'],
    ['a start whose process died before QEMU ran', vm('starting'), [], 'stopped'],
    ['a start whose QEMU died', vm('starting', { qemu }), [starter], 'stopped'],
    ['suspended', vm('suspended', { qemu }), [], 'suspended'],
    ['suspended, with a QEMU that was left', vm('suspended', { qemu }), [qemu], 'suspended'],
    ['QEMU is gone', vm('running', { qemu }), [starter], 'stopped'],
    ['QEMU is gone while paused', vm('paused', { qemu }), [], 'stopped'],
    ['stopped', vm('stopped', { qemu }), [], 'stopped'],
    ['written as stopped by one who was wrong', vm('stopped', { qemu }), [qemu], 'running'],
  ])('%s', (_what, record, living, state) => {
    expect(observeState(record, alive(...living)).state).toBe(state);
  });

  it('says what a suspend or resume that broke off has left', () => {
    const paused = vm('paused', { qemu });
    const parked = { ...paused, run: { ...paused.run, parked: true } } as VmRecord;
    expect(observeState(parked, alive(qemu)).detail).toMatch(/suspend or resume/);
    expect(observeState(paused, alive(qemu)).detail).toBeUndefined();
  });

  it('says why where QEMU is gone unasked', () => {
    expect(observeState(vm('running', { qemu }), alive()).detail).toMatch(/gone/);
    expect(observeState(vm('stopped', { qemu }), alive()).detail).toBeUndefined();
  });
});

describe('a clone that is not a machine of its own yet', () => {
  const half = vm('starting', { qemu });
  const clone = { ...half, run: { ...half.run, memoryPath: '/t/memory' } } as VmRecord;

  it('never runs, and is nobody’s once its maker is gone', () => {
    expect(observeState(clone, alive(qemu, starter)).state).toBe('starting');
    expect(observeState(clone, alive(qemu)).state).toBe('starting');
    expect(isAbandoned(clone, alive(qemu, starter))).toBe(false);
    expect(isAbandoned(clone, alive(qemu))).toBe(true);
  });

  it('is one like any other once it runs', () => {
    const whole = { ...clone, state: 'running' } as const;
    expect(observeState(whole, alive(qemu)).state).toBe('running');
    expect(isAbandoned(whole, alive(qemu))).toBe(false);
  });
});

describe('isAbandoned', () => {
  it('is an ephemeral VM without its owner, whatever its QEMU does', () => {
    expect(isAbandoned(vm('running', { qemu, owner }), alive(qemu))).toBe(true);
    expect(isAbandoned(vm('running', { qemu, owner }), alive(owner))).toBe(false);
    expect(isAbandoned(vm('running', { qemu }), alive())).toBe(false);
  });
});

describe('infoOf', () => {
  it('shows pid and CID only while it runs', () => {
    const record = vm('running', { qemu });
    expect(infoOf(paths, record, alive(qemu))).toMatchObject({ pid: 20, state: 'running' });
    expect(infoOf(paths, record, alive())).toMatchObject({ pid: undefined, state: 'stopped' });
  });

  it('shows of a broken record its defect', () => {
    const entry = { id: 'ffffffffffff', defect: 'cut off', fromLaterVersion: false } as const;
    expect(entryInfo(paths, entry)).toMatchObject({
      id: 'ffffffffffff',
      state: 'broken',
      stateDetail: 'cut off',
      dir: '/d/vms/ffffffffffff',
    });
  });
});

it('says which MAC address the guest has, and none where it has that of another', () => {
  const template = { name: 't', id: '0123456789ab', diskPaths: [], ports: 4 };
  const macOf = (network: string, o: { copy?: boolean; qemu?: 'gone' }) => {
    const record = vm('running', { qemu });
    const run = { ...record.run, memoryPath: o.copy === true ? '/m' : undefined };
    const config = { ...record.config, network, template: o.copy === true ? template : undefined };
    return infoOf(paths, { ...record, run, config } as VmRecord, o.qemu ? alive() : alive(qemu))
      .mac;
  };
  const own = '02:23:45:67:89:ab';
  expect(macOf('isolated', {})).toBe(own);
  expect(macOf('nat-filtered', { copy: true })).toBe(own);
  expect(macOf('isolated', { copy: true })).toBeUndefined();
  expect(macOf('isolated', { copy: true, qemu: 'gone' })).toBe(own); // as it will have at its next boot
});
