/** A VM for tests by value. */
import {
  DEFAULT_POLICY,
  type EgressRule,
  type NetworkPolicy,
  type VmNetwork,
} from '../../../nft/index.ts';

export const VM: VmNetwork = {
  tap: 'tap1',
  mac: '02:00:00:00:00:01',
  guestAddress: '10.210.0.2',
  gatewayAddress: '10.210.0.1',
  generation: 3,
  policy: DEFAULT_POLICY,
};

export const withPolicy = (policy: Partial<NetworkPolicy>, vm: VmNetwork = VM): VmNetwork => ({
  ...vm,
  policy: { ...vm.policy, ...policy },
});

export const rule = (id: number, o: Partial<EgressRule> = {}): EgressRule => ({
  id,
  title: `rule ${id}`,
  action: 'allow',
  protocol: 'tcp',
  ports: [443],
  destination: { kind: 'public' },
  ...o,
});
