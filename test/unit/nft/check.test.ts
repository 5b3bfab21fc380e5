import { describe, expect, test } from 'vitest';
import { checkVm, DEFAULT_POLICY, ISOLATED_POLICY, type VmNetwork } from '../../../nft/index.ts';
import { NetworkPolicyError } from '../../../src/errors.ts';
import { rule, VM, VM6, withPolicy } from './sample.ts';

const V6 = VM6.v6!;
const addresses = (...cidrs: string[]) => rule(1, { destination: { kind: 'addresses', cidrs } });

const BAD: [string, VmNetwork][] = [
  ['tap', { ...VM, tap: '' }],
  ['tap', { ...VM, tap: 'a-name-too-long-' }],
  ['tap', { ...VM, tap: 'tap*' }],
  ['tap', { ...VM, tap: '@tap' }],
  ['tap', { ...VM, tap: '1tap' }],
  ['mac', { ...VM, mac: '02:00:00:00:00' }],
  ['mac', { ...VM, mac: '01:00:00:00:00:01' }],
  ['mac', { ...VM, mac: 'ff:ff:ff:ff:ff:ff' }],
  ['mac', { ...VM, mac: '00:00:00:00:00:00' }],
  ['guestAddress', { ...VM, guestAddress: 'fe80::1' }],
  ['guestAddress', { ...VM, guestAddress: '127.0.0.1' }],
  ['gatewayAddress', { ...VM, gatewayAddress: '224.0.0.1' }],
  ['gatewayAddress', { ...VM, gatewayAddress: VM.guestAddress }],
  ['v6.guestAddress', { ...VM, v6: { ...V6, guestAddress: '10.210.0.2' } }],
  ['v6.guestAddress', { ...VM, v6: { ...V6, guestAddress: 'fd00::2%eth0' } }],
  ['v6.guestAddress', { ...VM, v6: { ...V6, guestAddress: 'fe80::2' } }],
  ['v6.guestAddress', { ...VM, v6: { ...V6, guestAddress: '::ffff:10.210.0.2' } }],
  ['v6.gatewayAddress', { ...VM, v6: { ...V6, gatewayAddress: '::1' } }],
  ['v6.gatewayAddress', { ...VM, v6: { ...V6, gatewayAddress: 'ff02::1' } }],
  ['v6.gatewayAddress', { ...VM, v6: { ...V6, gatewayAddress: 'fd00:0::3' } }],
  ['generation', { ...VM, generation: 4095 }],
  ['generation', { ...VM, generation: -1 }],
  ['policy.rules', withPolicy({ ...ISOLATED_POLICY, rules: [rule(1)] })],
  ['policy.rules', withPolicy({ rules: Array.from({ length: 257 }, (_, i) => rule(i + 1)) })],
  ['policy.rules[0].id', withPolicy({ rules: [rule(0)] })],
  ['policy.rules[0].id', withPolicy({ rules: [rule(4096)] })],
  ['policy.rules[1].id', withPolicy({ rules: [rule(1), rule(1)] })],
  ['policy.rules[0].title', withPolicy({ rules: [rule(1, { title: 'x'.repeat(101) })] })],
  ['policy.rules[0].title', withPolicy({ rules: [rule(1, { title: 'two\nlines' })] })],
  ['policy.rules[0].ports', withPolicy({ rules: [rule(1, { protocol: 'icmp', ports: [8] })] })],
  ['policy.rules[0].ports', withPolicy({ rules: [rule(1, { ports: Array<number>(65).fill(1) })] })],
  ['policy.rules[0].ports[0]', withPolicy({ rules: [rule(1, { ports: [0] })] })],
  ['policy.rules[0].ports[1]', withPolicy({ rules: [rule(1, { ports: [1, 65536] })] })],
  ['policy.rules[0].ports[0]', withPolicy({ rules: [rule(1, { ports: [[90, 80]] })] })],
  ['policy.rules[0].ports[0]', withPolicy({ rules: [rule(1, { ports: [80.5] })] })],
  ['policy.rules[0].destination.cidrs', withPolicy({ rules: [addresses()] })],
  [
    'policy.rules[0].destination.cidrs[1]',
    withPolicy({ rules: [addresses('1.2.3.4', '1.2.3.4/8')] }),
  ],
  ['policy.exceptions[0]', withPolicy({ exceptions: ['10.0.0.1/8'] })],
  ['policy.exceptions[0]', withPolicy({ exceptions: ['127.0.0.0/8'] })],
  ['policy.exceptions[0]', withPolicy({ exceptions: ['0.0.0.0/0'] })],
  ...['fd00::1/8', '::/0', '::1', 'fe80::1', 'ff02::/16', '::ffff:10.1.2.3'].map(
    (cidr): [string, VmNetwork] => ['policy.exceptions[0]', withPolicy({ exceptions: [cidr] })],
  ),
  [
    'policy.published[0].id',
    withPolicy({ rules: [rule(5)], published: [{ id: 5, protocol: 'tcp', port: 80 }] }),
  ],
  ['policy.published[0].port', withPolicy({ published: [{ id: 5, protocol: 'tcp', port: 0 }] })],
  [
    'policy.published',
    withPolicy({ published: [5, 6].map((id) => ({ id, protocol: 'tcp' as const, port: 80 })) }),
  ],
  ['policy.limits.connections', withPolicy({ limits: { connections: 0 } })],
  ['policy.limits.uploadBytesPerSecond', withPolicy({ limits: { uploadBytesPerSecond: 1.5 } })],
  ['policy.limits.newConnectionsBurst', withPolicy({ limits: { newConnectionsBurst: 5 } })],
];

describe('a VM that cannot be', () => {
  test.each(BAD)('%s', (field, vm) => {
    const error = thrown(() => checkVm(vm));
    expect(error).toBeInstanceOf(NetworkPolicyError);
    expect(error).toMatchObject({ code: 'ERR_NETWORK_POLICY', field });
    expect((error as NetworkPolicyError).message.startsWith(`${field}: `)).toBe(true);
    expect((error as NetworkPolicyError).hint).toMatch(/\w{3}/);
  });
});

test.each([
  DEFAULT_POLICY,
  ISOLATED_POLICY,
  { ...DEFAULT_POLICY, exceptions: ['10.1.2.3', '169.254.169.254'], limits: {} },
  { ...DEFAULT_POLICY, exceptions: ['fd12::/16', '64:ff9b::/96', '10.1.2.3'] },
  { ...DEFAULT_POLICY, rules: [addresses('::/0', '2001:db8::1', '192.0.2.0/24')] },
])('a VM that can', (policy) => {
  expect(() => checkVm({ ...VM, policy })).not.toThrow();
  expect(() => checkVm({ ...VM, v6: V6, policy })).not.toThrow();
});

function thrown(action: () => void): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error;
  }
}
