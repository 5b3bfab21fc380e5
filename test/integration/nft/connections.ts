/** Connections that the first VM of a test network has, case by case. */
import { afterEach, beforeEach } from 'vitest';
import { DEFAULT_POLICY, type EgressRule, type NetworkPolicy } from '../../../nft/index.ts';
import {
  type LogEntry,
  type TestNetwork,
  type TestNetworkOptions,
  useTestNetwork,
} from './network.ts';

/** For a whole file. @param o.site where connections go by default */
export function useConnections(
  take: (net: TestNetwork) => void,
  { site, ...options }: TestNetworkOptions & { site: string },
) {
  let net: TestNetwork;
  let generation = 1;
  const open: string[] = [];
  const guest = () => net.vms[0]!.peer;
  useTestNetwork((made) => take((net = made)), options);
  beforeEach(() => reset(DEFAULT_POLICY));
  afterEach(async () => {
    for (const id of open.splice(0)) await guest().do('close', { id });
  });

  /** Another generation: nothing of the case before lives on. */
  async function reset(policy: NetworkPolicy): Promise<void> {
    generation += 1;
    await net.change(0, policy, generation);
    // What the connections of the case before still had to say.
    while ((await net.logs({ waitS: 0.1 })).length > 0);
    await net.arrived();
  }

  async function connect(
    id: string,
    port: number,
    to = site,
    from?: readonly [address: string, port: number],
  ): Promise<unknown> {
    const bound = from === undefined ? {} : { from };
    const result = await guest().do('tcp_connect', { id, to, port, ...bound });
    if (result === 'ok') open.push(id);
    return result;
  }

  const say = (id: string) => guest().do('say', { id });
  return { guest, reset, connect, say, generation: () => generation };
}

/** To public addresses by TCP, where nothing else is said. */
export const rule = (id: number, ports: number[], o: Partial<EgressRule> = {}): EgressRule => ({
  id,
  title: `rule ${id}`,
  action: 'allow',
  protocol: 'tcp',
  ports,
  destination: { kind: 'public' },
  ...o,
});

/** Why the denied ones were. */
export const causes = (logs: LogEntry[]): string[] =>
  logs.flatMap((entry) => (entry.verdict === 'deny' ? [entry.cause] : []));
