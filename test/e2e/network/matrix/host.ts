/** What others do on the host: redirect, rename, take tables away. It opens nothing to a VM. */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HOST, LAN, WEB } from '../world.ts';
import { ask, query } from './names.ts';
import {
  allowed,
  carriesToken,
  connect,
  datagram,
  denied,
  GATEWAY_MAC,
  type Matrix,
  PACE_MS,
  pause,
  TOKEN,
} from './subject.ts';
import * as f from '../../../integration/nft/frames.ts';

export function hostCases(of: () => Matrix): void {
  const nft = (line: string) => of().world.run('nft', line);
  const works = () => of().check(of().two, () => connect(of().two, WEB, 443), allowed(WEB, 443));

  beforeAll(() => of().world.agent('net', 'set', 'two'));

  describe('a redirection on the host (DNAT)', () => {
    afterEach(() => nft('delete table ip publish'));
    const redirect = async (match: string, to: string) => {
      await nft(
        'add table ip publish; add chain ip publish pre { type nat hook prerouting priority dstnat; }',
      );
      await nft(`add rule ip publish pre ${match} dnat to ${to}`);
    };

    it('of an allowed address to a private one', async () => {
      await redirect(`ip daddr ${WEB} tcp dport 443`, `${LAN}:443`);
      const act = () => connect(of().two, WEB, 443);
      await of().check(of().two, act, denied('dnat', LAN, 443, 'ECONNREFUSED'));
    });

    it('of an allowed address to another VM', async () => {
      await redirect(`ip daddr ${WEB} tcp dport 443`, `${of().one.address}:80`);
      const act = () => connect(of().two, WEB, 443);
      await of().check(of().two, act, denied('vm', of().one.address, 80, 'ECONNREFUSED'));
    });

    it("of the host's port to an allowed address", async () => {
      await redirect(`ip daddr ${HOST} tcp dport 8000`, `${WEB}:443`);
      const act = () => connect(of().two, HOST, 8000);
      await of().check(of().two, act, denied('dnat', WEB, 443, 'ECONNREFUSED'));
    });

    it('of an allowed address to the host itself', async () => {
      await redirect(`ip daddr ${WEB} tcp dport 443`, `${HOST}:80`);
      const act = () => connect(of().two, WEB, 443);
      await of().check(of().two, act, denied('host', HOST, 80, 'ECONNREFUSED'));
    });

    it('of an allowed address to the resolver of the VM', async () => {
      await redirect(`ip daddr ${WEB} udp dport 53`, `${of().two.gateway}:53`);
      const act = () => ask(of().two, query('web.test'), { to: WEB, timeoutS: 0.5 });
      await of().check(of().two, act, {
        answer: 'timeout',
        record: { kind: 'denied' },
        passes: false,
      });
    });
  });

  describe('a tap', () => {
    /** Tries all that a policy allows, and an honest frame; nothing may come of it. */
    async function expectShut(): Promise<void> {
      const { two, internet } = of();
      await internet.do('take', { id: 'frames' });
      expect(await connect(two, WEB, 443, { timeoutS: 0.5 })).not.toBe('ok');
      expect(await ask(two, query('web.test'), { timeoutS: 0.5 })).not.toContain(WEB);
      expect(await datagram(two, WEB, 443)).not.toBe('echo');
      const ends = { source: two.address, destination: WEB };
      const packet = f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, 48_001, 443, f.SYN, TOKEN));
      const frames = [f.ethernet({ from: two.mac, to: GATEWAY_MAC }, 0x0800, packet)];
      await two.peer.do('frame', { dev: 'eth0', frames });
      await pause(PACE_MS);
      const arrived = (await internet.do('take', { id: 'frames' })) as string[];
      expect(arrived.filter(carriesToken)).toEqual([]);
    }

    it('that is renamed is shut, and says so', async () => {
      const { world, two } = of();
      const { tap } = await world.info('two');
      two.records.clear();
      await world.run('ip', 'link', 'set', tap!, 'name', 'renamed');
      await expectShut();
      await two.records.expect({ kind: 'denied' });
      await world.run('ip', 'link', 'set', 'renamed', 'name', tap!);
      await works();
    });

    it.each([
      ['netdev', 'flush ruleset netdev'],
      ['inet', 'flush ruleset inet'],
    ])('whose table %s is gone is shut, until gc', async (_family, line) => {
      const { world } = of();
      await nft(line);
      await expectShut();
      await world.agent('gc');
      await works();
    });
  });
}
