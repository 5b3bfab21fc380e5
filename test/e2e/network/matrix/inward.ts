/** What others get who speak to a VM: from the internet, another VM, the host; and what is said in a VM's name. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as f from '../../../integration/nft/frames.ts';
import { HOST, OTHER, UPSTREAM, WEB } from '../world.ts';
import {
  carriesToken,
  connect,
  datagram,
  denied,
  type Matrix,
  PACE_MS,
  pause,
  TOKEN,
} from './subject.ts';
import { query } from './names.ts';

const POOL = '10.210.0.0/16';

export function inwardCases(of: () => Matrix): void {
  /** Whether the guest was sent any of it. */
  const reached = async (): Promise<boolean> =>
    ((await of().one.peer.do('take', { id: 'frames' })) as string[]).some(carriesToken);
  const shut = async (
    act: () => Promise<unknown>,
    from: string,
    answer: string | null = 'timeout',
  ) => {
    await reached();
    const { one } = of();
    const record = { kind: 'denied', cause: 'inward', from };
    await of().check(one, act, { answer, record, passes: false });
    expect(await reached()).toBe(false);
  };
  const outside = (o: object) => of().internet.do('tcp_connect', { timeoutS: 0.5, ...o });

  describe('from the internet', () => {
    let hostMac: string;
    beforeAll(async () => {
      await of().world.runUpstream('ip', 'route', 'add', POOL, 'via', HOST);
      hostMac = (await of().world.run('cat', '/sys/class/net/eth0/address')).trim();
    });
    afterAll(() => of().world.runUpstream('ip', 'route', 'del', POOL));
    const raw = (packet: Buffer) =>
      of().internet.do('frame', {
        dev: 'eth0',
        frames: [f.ethernet({ from: '02:cc:00:00:00:01', to: hostMac }, 0x0800, packet)],
      });

    it('a connection', () => shut(() => outside({ to: of().one.address, port: 80 }), UPSTREAM));

    it('a datagram', async () => {
      const o = { port: 80, text: TOKEN, timeoutS: 0.5 };
      await shut(() => of().internet.do('udp', { to: of().one.address, ...o }), UPSTREAM);
    });

    it('a ping', async () => {
      const act = () => of().internet.do('ping', { to: of().one.address, timeoutS: 0.5 });
      await shut(act, UPSTREAM);
    });

    it('an answer that nobody asked for', async () => {
      const ends = { source: WEB, destination: of().one.address };
      const packet = f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, 443, 47_100, f.ACK, TOKEN));
      await shut(() => raw(packet), WEB, null);
    });

    it("in the host's own name", async () => {
      const ends = { source: of().one.gateway, destination: of().one.address };
      const packet = f.ipv4({ protocol: 6, ...ends }, f.tcp(ends, 5000, 80, f.SYN, TOKEN));
      await reached();
      await raw(packet);
      await pause(PACE_MS);
      expect(await reached()).toBe(false);
    });

    it('the resolver answers nobody but its VM', async () => {
      const { one, internet } = of();
      one.records.clear();
      const hex = query('web.test');
      const o = { to: one.gateway, hex, timeoutS: 0.5 };
      expect(await internet.do('ask', o)).toBe('timeout');
      expect(await internet.do('ask', { ...o, tcp: true })).toMatch(/ECONNRESET|closed/);
      expect(one.records.all).toEqual([]);
    });

    it("nor is it asked in a VM's name, nor is anything sent out in it", async () => {
      const { one, internet } = of();
      one.records.clear();
      await internet.do('take', { id: 'frames' });
      const asking = { source: one.address, destination: one.gateway };
      const text = Buffer.from(query('web.test'), 'hex').toString('latin1');
      await raw(f.ipv4({ protocol: 17, ...asking }, f.udp(asking, 5000, 53, text)));
      const going = { source: one.address, destination: OTHER };
      await raw(f.ipv4({ protocol: 6, ...going }, f.tcp(going, 5000, 443, f.SYN, TOKEN)));
      await pause(2 * PACE_MS);
      expect(one.records.all).toEqual([]);
      const back = (await internet.do('take', { id: 'frames' })) as string[];
      expect(back.filter(carriesToken)).toEqual([]);
    });
  });

  describe('a published port', () => {
    it('of the loopback is none to the internet', async () => {
      await reached();
      expect(await outside({ to: HOST, port: 8080 })).toBe('ECONNREFUSED');
      const o = { to: HOST, port: 5353, text: TOKEN, timeoutS: 0.5 };
      expect(await of().internet.do('udp', o)).toBe('ECONNREFUSED');
      expect(await reached()).toBe(false);
    });

    it('of an address of the host is one, and the guest sees its gateway', async () => {
      const { one, internet } = of();
      expect(await outside({ to: HOST, port: 8081, id: 'in', timeoutS: 5 })).toBe('ok');
      expect(await internet.do('say', { id: 'in', text: TOKEN })).toBe('echo');
      const seen = ((await one.peer.do('take', { id: 'frames' })) as string[]).filter(carriesToken);
      // The source is at the 26th byte.
      const from = seen.map((hex) => [...Buffer.from(hex.slice(52, 60), 'hex')].join('.'));
      expect(new Set(from)).toEqual(new Set([one.gateway]));
      await internet.do('close', { id: 'in' });
    });

    it('is none to another VM', async () => {
      const { two } = of();
      const act = () => connect(two, HOST, 8081);
      await of().check(two, act, denied('host', HOST, 8081, 'ECONNREFUSED'));
    });
  });

  describe('from another VM', () => {
    it.each([
      ['a connection', () => connect(of().two, of().one.address, 80)],
      ['a datagram', () => datagram(of().two, of().one.address, 80)],
      ['a ping', () => of().two.peer.do('ping', { to: of().one.address, timeoutS: 0.5 })],
    ])('%s', async (_name, act) => {
      await reached();
      await of().check(of().two, act, denied('vm', of().one.address));
      expect(await reached()).toBe(false);
    });
  });

  it('the host itself may connect, which is nobody else’s business', async () => {
    const { one, world } = of();
    one.records.clear();
    const line = `exec 3<>/dev/tcp/${one.address}/80; echo ${TOKEN} >&3; head -n 1 <&3`;
    expect(await world.run('bash', '-c', line)).toBe(`${TOKEN}\n`);
    expect(one.records.all).toEqual([]);
  });
}
