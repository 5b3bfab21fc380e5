/** The modes that have no tap: what is promised of each, and of `user` also what is not. */
import { beforeAll, describe, expect, it } from 'vitest';
import * as f from '../../../integration/nft/frames.ts';
import type { Peer } from '../../../integration/nft/network.ts';
import { HOST, LAN, METADATA, WEB } from '../world.ts';
import { carriesToken, type Matrix, PACE_MS, pause, TOKEN } from './subject.ts';

const SLIRP = { address: '10.0.2.15', gateway: '10.0.2.2', mac: '52:55:0a:00:02:02' };

export function plainCases(of: () => Matrix): void {
  let shut: Peer;
  let user: Peer;
  beforeAll(async () => {
    const { world } = of();
    [shut, user] = [await world.guestPeer('isolated'), await world.guestPeer('user')];
    await user.do('listen', { tcp: [80] });
  });

  const arrived = async (): Promise<string[]> =>
    ((await of().internet.do('take', { id: 'frames' })) as string[]).filter(carriesToken);
  const macOf = async (peer: Peer) =>
    String(await peer.do('run', { line: 'cat /sys/class/net/eth0/address' })).trim();

  describe('isolated', () => {
    it('reaches nothing, though root sets everything up', async () => {
      const setUp =
        'ip link set eth0 up; ip address add 10.210.0.77/24 dev eth0; ip route add default via 10.210.0.1 onlink dev eth0';
      await shut.do('run', { line: setUp });
      await arrived();
      const wants = { timeoutS: 0.5 };
      expect(await shut.do('tcp_connect', { to: WEB, port: 443, ...wants })).not.toBe('ok');
      expect(await shut.do('udp', { to: '10.210.0.1', port: 53, text: TOKEN, ...wants })).not.toBe(
        'echo',
      );
      expect(await shut.do('ping', { to: HOST, ...wants })).not.toBe('echo');
    });

    it('nor do its frames get anywhere on the host', async () => {
      const ends = { source: '10.210.0.77', destination: WEB };
      const packet = f.ipv4({ protocol: 17, ...ends }, f.udp(ends, 4000, 443, TOKEN));
      const mac = await macOf(shut);
      const frames = ['ff:ff:ff:ff:ff:ff', '02:71:6d:70:61:01'].map((to) =>
        f.ethernet({ from: mac, to }, 0x0800, packet),
      );
      await shut.do('frame', { dev: 'eth0', frames });
      await pause(PACE_MS);
      expect(await arrived()).toEqual([]);
      const links = await of().world.run('ip', '-o', 'link');
      expect(links.match(/qmp[ab]\d+/g)).toHaveLength(2); // those of the other two
    });
  });

  describe('user', () => {
    it.each([
      ['the internet', WEB, 443],
      ['a port that a policy would shut', WEB, 25],
      ['the LAN', LAN, 443],
      ['the metadata service', METADATA, 80],
      ["the host's own loopback", SLIRP.gateway, 80],
    ])('is no boundary: it reaches %s', async (_name, to, port) => {
      expect(await user.do('tcp_connect', { to, port })).toBe('ok');
    });

    it('is let in by nobody', async () => {
      await of().world.runUpstream('ip', 'route', 'add', '10.0.2.0/24', 'via', HOST);
      const o = { to: SLIRP.address, port: 80, timeoutS: 0.5 };
      expect(await of().internet.do('tcp_connect', o)).not.toBe('ok');
      await of().world.runUpstream('ip', 'route', 'del', '10.0.2.0/24');
    });

    it.each<[string, (honest: f.Ends) => string]>([
      ['IPv6', (ends) => f.ethernet(ends, 0x86dd, f.ipv6('20010db8'.padEnd(32, '1'), TOKEN))],
      ['GRE', (ends) => f.ethernet(ends, 0x0800, raw(47))],
      ['a VLAN tag', (ends) => f.ethernet(ends, 0x0800, raw(17), [[0x8100, 5]])],
    ])('carries no %s', async (_name, make) => {
      await arrived();
      const ends = { from: await macOf(user), to: SLIRP.mac };
      await user.do('frame', { dev: 'eth0', frames: [make(ends)] });
      await pause(PACE_MS);
      expect(await arrived()).toEqual([]);
    });

    it('sends nothing in the name of another', async () => {
      await arrived();
      const ends = { from: await macOf(user), to: SLIRP.mac };
      const frame = (source: string) => f.ethernet(ends, 0x0800, raw(17, source));
      await user.do('frame', { dev: 'eth0', frames: [frame(HOST), frame(SLIRP.address)] });
      await pause(2 * PACE_MS);
      const sources = (await arrived()).map((hex) =>
        [...Buffer.from(hex.slice(52, 60), 'hex')].join('.'),
      );
      // Whatever it says that it is: QEMU sends as the process that it is.
      expect(new Set(sources)).toEqual(new Set([HOST]));
    });
  });
}

function raw(protocol: number, source = SLIRP.address): Buffer {
  const ends = { source, destination: WEB };
  return f.ipv4({ protocol, ...ends }, f.udp(ends, 4000, 443, TOKEN));
}
