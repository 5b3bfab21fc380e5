/** Networks that become the host's own while VMs run, and are so no more: real packets, by the real rules. */
import { describe, expect, test } from 'vitest';
import {
  DEFAULT_POLICY,
  type EgressRule,
  removeBase,
  setHostNetworks,
} from '../../../nft/index.ts';
import { OTHER_SITE6, SITE6, type TestNetwork } from './network.ts';
import { causes, rule, useConnections } from './connections.ts';

const SITE4 = '203.0.113.10';
/** Of the first site alone, and of both. */
const [NEAR, WIDE] = [`${SITE6}`, '3ffe:ffff::/64'];
const DENYING: readonly EgressRule[] = (['tcp', 'udp', 'icmp'] as const).map((protocol, index) =>
  rule(50 + index, [], { action: 'deny', protocol, destination: { kind: 'host-networks' } }),
);
const PUBLIC = [rule(60, [80, 443]), rule(61, [443], { protocol: 'udp' })];
const ALLOWED = rule(40, [443], { destination: { kind: 'addresses', cidrs: [SITE6] } });
const withRules = (...rules: EgressRule[]) => ({ ...DEFAULT_POLICY, rules });

let net: TestNetwork;
const { guest, reset, connect, say } = useConnections((made) => (net = made), {
  site: SITE6,
  vms6: 1,
});
const become = (...cidrs: string[]) => net.client.apply(setHostNetworks(cidrs));
const usual = async (...allowed: EgressRule[]) => {
  await become();
  await reset(withRules(...allowed, ...DENYING, ...PUBLIC));
};
const denials = async () =>
  (await net.logs({ waitS: 5 })).filter(({ verdict }) => verdict === 'deny');

describe('a network that becomes the host’s own', () => {
  test('is shut to what is new, and cut off from what is open; all else stands', async () => {
    await usual();
    expect([await connect('near', 443), await connect('far', 443, OTHER_SITE6)]).toEqual([
      ...['ok', 'ok'],
    ]);
    expect(await connect('four', 443, SITE4)).toBe('ok');
    expect([await say('near'), await say('far'), await say('four')]).toEqual(Array(3).fill('echo'));
    await net.logs();
    await become(NEAR);
    expect([await say('far'), await say('four')]).toEqual(['echo', 'echo']);
    expect(await say('near')).toBe('ECONNRESET');
    expect(await denials()).toEqual([{ verdict: 'deny', cause: 'rule', ruleId: 50, tap: 'tvm1' }]);
    expect(await connect('new', 443)).toBe('ECONNREFUSED');
    expect(await guest().do('udp', { to: SITE6, port: 443 })).toBe('EACCES');
    expect(await connect('new elsewhere', 443, OTHER_SITE6)).toBe('ok');
    await become();
    expect(await connect('again', 443)).toBe('ok');
  });

  test('is cut off where its machine is the next to speak, too, which is told', async () => {
    await usual();
    await connect('near', 443);
    await become(NEAR);
    await net.logs();
    await net.up.do('tell', { port: 443, text: 'news' });
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['inward']);
    expect(await guest().do('receive', { id: 'near', timeoutS: 0.3 })).toBe('timeout');
    expect(await net.up.do('tell', { port: 443, text: 'more' })).not.toBe('ok');
  });

  test('stays open where it is allowed by name, and what is open there stands', async () => {
    await usual(ALLOWED);
    await connect('near', 443);
    await connect('plain', 80);
    await net.logs();
    await become(WIDE);
    for (let times = 0; times < 3; times++) expect(await say('near')).toBe('echo');
    expect(await say('plain')).toBe('ECONNRESET');
    expect(await connect('new', 443)).toBe('ok');
    const counters = (await net.client.counters({ groups: ['rules'] })).get('tvm1')!;
    expect(counters.byRule.get(40)?.packets).toBeGreaterThan(3);
    // On its fast path still: none of it was logged as if it were new.
    const allowed = (await net.logs({ waitS: 1 })).filter(({ verdict }) => verdict === 'allow');
    expect(allowed).toHaveLength(1);
  });

  test('has a flow of datagrams go on when it is the host’s no more', async () => {
    await usual();
    const from = ['fd00:210::1', 5_000];
    const ask = () => guest().do('udp', { to: SITE6, port: 443, from, timeoutS: 1 });
    expect([await ask(), await ask()]).toEqual(['echo', 'echo']);
    await become(NEAR);
    expect(await ask()).not.toBe('echo');
    expect(await ask()).not.toBe('echo');
    await become();
    expect(await ask()).toBe('echo');
  });
});

describe('the set of them', () => {
  test('takes one list in place of another at one instant, and says what it holds', async () => {
    for (const cidrs of [
      ['2a00:1::/64', '2a00:1:0:1::/64', '2a00:3::5'], // the first two meet
      ['2a00:1::/48', '2a00:3::/64'], // around those
      ['2a00:1:0:1::/64'],
      [],
    ]) {
      await become(...cidrs);
      expect((await net.client.hostNetworks())?.sort()).toEqual(cidrs.sort());
    }
  });

  test('is not there where the tables are not, and empty where they come again', async () => {
    await become(NEAR);
    await net.client.apply(removeBase());
    expect(await net.client.hostNetworks()).toBeUndefined();
    await expect(become(NEAR)).rejects.toMatchObject({ reason: 'missing' });
    await net.client.ensureBase();
    expect(await net.client.hostNetworks()).toEqual([]);
  });
});
