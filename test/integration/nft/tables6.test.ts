/** VMs with IPv6 in the tables: what of them comes and goes, and what holds where it is not there. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { addVm, remainsOf, removeVm, type VmNetwork } from '../../../nft/index.ts';
import * as f from './frames.ts';
import { SITE6, TestNetwork, whyNot } from './network.ts';

const skip = whyNot();
const SITE4 = '203.0.113.10';

let net: TestNetwork;
beforeEach(async (context) => {
  if (skip !== undefined) context.skip(skip);
  net = await TestNetwork.create({ vms: 1, vms6: 1 });
});
afterEach(() => net?.close());

/** SYNs that the policy allows; those that got out. */
async function flood(source = 'fd00:210::1'): Promise<string[]> {
  const { ends, peer } = net.vms[0]!;
  await net.arrived();
  const o = { source, destination: SITE6 };
  const packet = f.packet6({ ...o, next: 6 }, f.tcp(o, 45_000, 443, f.SYN, 'TOKEN'));
  const frames = Array<string>(20).fill(f.ethernet(ends, 0x86dd, packet));
  await peer.do('frame', { dev: 'eth0', frames });
  await new Promise((resolve) => setTimeout(resolve, 100));
  return (await net.arrived()).filter((hex) => hex.includes(Buffer.from('TOKEN').toString('hex')));
}
const connect = (to: string) => net.vms[0]!.peer.do('tcp_connect', { to, port: 443, timeoutS: 1 });
const ping = () => net.vms[0]!.peer.do('ping', { to: 'fd00:210::', timeoutS: 0.5 });
const withoutV6 = ({ v6: _v6, ...rest }: VmNetwork): VmNetwork => rest;

describe('a VM with IPv6', () => {
  test('has its elements, and nothing is left of it', async () => {
    expect((await flood()).length).toBeGreaterThan(0);
    const [found] = await net.client.remains();
    const sets = found!.elements.map(({ set }) => `${set.family} ${set.name}`);
    for (const set of ['netdev id6', 'netdev v6', 'inet self6', 'inet gateway6', 'inet nat6']) {
      expect(sets).toContain(set);
    }
    await net.client.apply(removeVm(found!));
    expect(await net.client.remains()).toEqual([]);
    expect(net.nft('list', 'ruleset')).not.toContain('fd00:210::');
  });

  test('that has lost its rules reaches nothing', async () => {
    await net.client.apply(removeVm(remainsOf(net.vms[0]!.network)));
    expect(await flood()).toEqual([]);
    const entries = await net.logs();
    expect(entries[0]).toMatchObject({ verdict: 'deny', cause: 'stray' });
    expect(await ping()).toBe('timeout');
  });

  test('whose tap was renamed reaches nothing', async () => {
    net.run('host', 'ip', 'link', 'set', 'tvm1', 'down');
    net.run('host', 'ip', 'link', 'set', 'tvm1', 'name', 'other1');
    net.run('host', 'ip', 'link', 'set', 'other1', 'up');
    expect(await flood()).toEqual([]);
    expect(await ping()).not.toBe('echo');
  });

  test('loses it where it is added without', async () => {
    const { network } = net.vms[0]!;
    expect([await connect(SITE6), await connect(SITE4)]).toEqual(['ok', 'ok']);
    const four = { ...withoutV6(network), generation: 2 };
    await net.client.apply([...removeVm(remainsOf(network)), ...addVm(four)]);
    await net.logs();
    expect([await connect(SITE6), await connect(SITE4)]).toEqual(['timeout', 'ok']);
    expect(await ping()).toBe('timeout');
    const denied = (await net.client.counters({ groups: ['denied'] })).get('tvm1')!;
    expect([...denied.deniedByCause.keys()]).toEqual(['ipv6']);
    await net.client.apply([...removeVm(remainsOf(four)), ...addVm(network)]);
    expect([await connect(SITE6), await connect(SITE4)]).toEqual(['ok', 'ok']);
  });

  test.each(['inet', 'netdev'])('is held by either table: without %s', async (family) => {
    // Its own forged packets: of both tables, one knows its address.
    net.nft('delete', 'table', family, 'qmp_agent');
    if (family === 'netdev') expect(await flood('fd00:210::7')).toEqual([]);
    await net.client.ensureBase();
    expect(await flood('fd00:210::7')).toEqual([]);
    if (family === 'inet') expect(await flood()).toEqual([]); // it has to be added again
  });
});
