import { describe, expect, it } from 'vitest';
import { assertSomeKnown, availabilityHint } from '../../../qmp/availability.ts';

const version = (major: number, minor: number) => ({ major, minor, micro: 1, package: '' });
const generic = (desc: string) => ({ errorClass: 'GenericError', desc });
const NOT_FOUND = { errorClass: 'CommandNotFound', desc: '' };

describe('availabilityHint', () => {
  it.each([
    ['block-job-change', NOT_FOUND, version(7, 2), 'block-job-change is known in QEMU 10.0'],
    ['x-query-rdma', NOT_FOUND, version(10, 0), 'x-query-rdma is known up to QEMU 7.2'],
    ['query-xyzzy', NOT_FOUND, version(10, 0), 'check the spelling'],
    ['object-add', generic("Parameter 'rom' is unexpected"), version(7, 2), "'rom' is known in"],
    [
      'migrate-set-capabilities',
      generic("Parameter 'capability' does not accept value 'mapped-ram'"),
      version(8, 2),
      "This is QEMU 8.2.1. 'mapped-ram' is known in QEMU 10.0, not in older ones we know: leave",
    ],
    ['migrate', generic("Parameter 'blk' is unexpected"), version(10, 0), 'up to QEMU 7.2'],
    // Where this version has it, the refusal has another reason.
    ['object-add', generic("Parameter 'rom' is unexpected"), version(10, 1), 'Correct what QEMU'],
    ['object-add', generic("Parameter 'id' is missing"), version(7, 2), 'Correct what QEMU names'],
  ])('%s %j', (command, refusal, connected, hint) => {
    expect(availabilityHint(command, refusal, connected)).toContain(hint);
  });
});

describe('assertSomeKnown', () => {
  it.each([
    [['GUEST_PVSHUTDOWN'], version(7, 2)],
    [['GUEST_PVSHUTDOWN', 'VFIO_MIGRATION'], version(6, 0)],
    [['MEM_UNPLUG_ERROR'], version(10, 0)],
  ])('refuses %j on %j', (events, connected) => {
    expect(() => assertSomeKnown(events, connected)).toThrow(`never sends ${events.join(' or ')}`);
  });

  it.each([
    [['STOP'], version(7, 2)],
    [['GUEST_PVSHUTDOWN', 'STOP'], version(7, 2)],
    [['GUEST_PVSHUTDOWN'], version(10, 0)],
    [['GUEST_PVSHUTDOWN'], version(11, 2)],
    [['MEM_UNPLUG_ERROR'], version(7, 2)],
    // Between the versions we know nothing is certain.
    [['GUEST_PVSHUTDOWN'], version(8, 2)],
    [['MEM_UNPLUG_ERROR'], version(8, 2)],
  ])('takes %j on %j', (events, connected) => {
    assertSomeKnown(events, connected);
  });
});
