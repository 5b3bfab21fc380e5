/** A VM for tests by value. */
import {
  DEFAULT_POLICY,
  type EgressRule,
  type NetworkPolicy,
  type NftTransaction,
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

/** The same with IPv6. */
export const VM6: VmNetwork = {
  ...VM,
  v6: { guestAddress: 'fd00::3', gatewayAddress: 'fd00::2' },
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

/** One line for each command; JSON says little to a reader. */
export function lines(transaction: NftTransaction): string[] {
  return transaction.map((command) => {
    const [verb, object] = Object.entries(command)[0] as [string, Record<string, never>];
    const [kind, facts] = Object.entries(object)[0] as [string, Record<string, unknown>];
    if (kind === 'rule')
      return `${verb} rule ${String(facts['chain'])} ${JSON.stringify(facts['expr'])}`;
    const { family, name, elem, table: _table, ...rest } = facts;
    const tail = elem ?? (Object.keys(rest).length > 0 ? rest : undefined);
    const text = tail === undefined ? '' : ` ${JSON.stringify(tail)}`;
    return `${verb} ${kind} ${String(family)} ${String(name)}${text}`;
  });
}
