/** A VM for tests by value. */
import {
  addVm,
  DEFAULT_POLICY,
  type EgressRule,
  type NetworkPolicy,
  type NftTransaction,
  remainsOf,
  removeVm,
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

/** One for a name, whose addresses are in sets. */
export const namedRule = (id: number): EgressRule =>
  rule(id, { destination: { kind: 'dynamic', of: 'example.org' } });

/** Those {@link lines} that begin so. */
export const linesOf = (transaction: NftTransaction, beginning: string): string[] =>
  lines(transaction).filter((line) => line.startsWith(beginning));

/** What `removeVm` leaves of what `addVm` adds. Rules go with their chains. */
export function leftOf(vm: VmNetwork): string[] {
  const removed = new Set(lines(removeVm(remainsOf(vm))));
  return lines(addVm(vm)).filter((line) => {
    const [, kind, family, name] = line.split(' ') as [string, string, string, string];
    if (kind === 'rule') return false;
    const undone =
      kind === 'element' ? line.replace(/^add/, 'delete') : `delete ${kind} ${family} ${name}`;
    return !removed.has(undone);
  });
}

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
