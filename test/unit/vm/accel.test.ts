import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostError } from '../../../src/errors.ts';
import { events, type EventOf } from '../../../src/events.ts';
import { chooseAccel, isKvmFailure, kvmObstacle, type KvmFacts } from '../../../src/vm/accel.ts';

const works: KvmFacts = { openError: undefined, cpuFlag: true };
const obstacles: readonly (readonly [KvmFacts, RegExp, RegExp])[] = [
  [{ openError: 'ENOENT', cpuFlag: true }, /does not exist/, /modprobe/],
  [{ openError: 'EACCES', cpuFlag: true }, /no permission/, /usermod -aG kvm/],
  [{ openError: 'EPERM', cpuFlag: true }, /no permission/, /usermod -aG kvm/],
  [{ openError: 'EBUSY', cpuFlag: true }, /EBUSY/, /dmesg/],
  [{ openError: undefined, cpuFlag: false }, /neither vmx nor svm/, /nested/],
];

const warnings: EventOf<'host.warning'>[] = [];
let unsubscribe: () => void;
beforeEach(() => {
  unsubscribe = events.subscribe((event) => {
    if (event.type === 'host.warning') warnings.push(event);
  });
});
afterEach(() => unsubscribe());

describe('the choice of the accelerator', () => {
  it('takes KVM where it works, for auto and kvm', () => {
    expect(kvmObstacle(works)).toBeUndefined();
    expect(chooseAccel('auto', works)).toBe('kvm');
    expect(chooseAccel('kvm', works)).toBe('kvm');
    expect(warnings).toEqual([]);
  });

  it('takes TCG where that was asked for, without a word', () => {
    expect(chooseAccel('tcg', works)).toBe('tcg');
    expect(chooseAccel('tcg', { openError: 'ENOENT', cpuFlag: false })).toBe('tcg');
    expect(warnings).toEqual([]);
  });

  it.each(obstacles)('kvm with %j is an error that says why', (facts, why, what) => {
    let thrown: unknown;
    try {
      chooseAccel('kvm', facts);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(HostError);
    expect(thrown).toMatchObject({ code: 'ERR_HOST_KVM' });
    expect((thrown as HostError).message).toMatch(why);
    expect((thrown as HostError).hint).toMatch(what);
  });

  it('auto comes down to TCG in every such case, and warns once a process', () => {
    for (const [facts] of obstacles) expect(chooseAccel('auto', facts)).toBe('tcg');
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ code: 'accel.tcg', hint: expect.stringMatching(/./) });
    expect(warnings[0]?.message).toMatch(/TCG.*does not exist/);
  });
});

describe('isKvmFailure', () => {
  it.each([
    'qemu-system-x86_64: -accel kvm: failed to initialize kvm: No such device',
    'Could not access KVM kernel module: Permission denied',
    'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy',
    'qemu-system-x86_64: -accel kvm: invalid accelerator kvm',
  ])('knows %j', (stderr) => expect(isKvmFailure(stderr)).toBe(true));

  it.each(['', 'could not open disk image', 'vhost-vsock: unable to set guest cid'])(
    'is not misled by %j',
    (stderr) => expect(isKvmFailure(stderr)).toBe(false),
  );
});
