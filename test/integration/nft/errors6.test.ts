/** Errors of ICMPv6: about a VM's own connections, both ways, and about those of others. */
import { beforeEach, describe, expect, test } from 'vitest';
import { DEFAULT_POLICY, DEFAULT_RULES } from '../../../nft/index.ts';
import * as f from './frames.ts';
import {
  HOST6,
  type LogEntry,
  OTHER_SITE6,
  SITE6,
  type TestNetwork,
  UP6,
  useTestNetwork,
} from './network.ts';

const GUEST = 'fd00:210::1';
const OTHER_VM = 'fd00:210::3';

let net: TestNetwork;
let generation = 1;
useTestNetwork((made) => (net = made), { vms6: 2 });
beforeEach(async () => {
  for (const id of open.splice(0)) await guest().do('close', { id });
  // Another generation: nothing of the case before lives on.
  await net.change(0, DEFAULT_POLICY, ++generation);
  while ((await net.logs({ waitS: 0.1 })).length > 0);
  await net.arrived();
});

const open: string[] = [];
const guest = () => net.vms[0]!.peer;

/** From a port that the error is to name. */
async function connect(id: string, port: number): Promise<void> {
  const from = [GUEST, port];
  expect(await guest().do('tcp_connect', { id, to: SITE6, port: 443, from })).toBe('ok');
  open.push(id);
  await net.logs();
  await net.arrived();
}

const causes = (logs: LogEntry[]): string[] =>
  logs.flatMap((entry) => (entry.verdict === 'deny' ? [entry.cause] : []));

describe('errors of ICMPv6', () => {
  const ends = { from: '02:bb:00:00:00:01', to: '02:aa:00:00:00:01' };
  const send = (packet: Buffer) =>
    guest().do('frame', { dev: 'eth0', frames: [f.ethernet(ends, 0x86dd, packet)] });
  type Ports = readonly [from: number, to: number];
  const quoted = (o: { source: string; destination: string }, [from, to]: Ports): Buffer =>
    f.packet6({ ...o, next: 6 }, f.tcp(o, from, to, f.ACK));
  const tooBig = (destination: string, about: Buffer): Buffer => {
    const o = { source: GUEST, destination };
    return f.packet6({ ...o, next: 58 }, f.packetTooBig(o, about));
  };
  // The next header is the seventh byte of the IP header.
  const isIcmp = (hex: string) => hex.slice(24, 28) === '86dd' && hex.slice(40, 42) === '3a';

  test("about the VM's own connection get through", async () => {
    await connect('mine', 50_003);
    await send(tooBig(SITE6, quoted({ source: SITE6, destination: GUEST }, [443, 50_003])));
    await expect.poll(async () => (await net.arrived()).some(isIcmp)).toBe(true);
    expect(causes(await net.logs())).toEqual([]);
  });

  test.each([1, 3, 4])('of type %i too', async (type) => {
    await connect('mine', 50_004 + type);
    const o = { source: GUEST, destination: SITE6 };
    const about = quoted({ source: SITE6, destination: GUEST }, [443, 50_004 + type]);
    const rest = Buffer.concat([Buffer.alloc(4), about]);
    await send(f.packet6({ ...o, next: 58 }, f.icmp6(o, type, 0, rest)));
    await expect.poll(async () => (await net.arrived()).some(isIcmp)).toBe(true);
    expect(causes(await net.logs())).toEqual([]);
  });

  test('about one that was cut do not', async () => {
    await connect('mine', 50_009);
    await net.change(0, { rules: DEFAULT_RULES.slice(1) });
    await net.logs();
    await net.arrived();
    await send(tooBig(SITE6, quoted({ source: SITE6, destination: GUEST }, [443, 50_009])));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    expect((await net.arrived()).filter(isIcmp)).toEqual([]);
  });

  test("about another VM's connection do not", async () => {
    // Of the same generation, and so with the same mark: it is the address that tells them apart.
    await net.change(1, DEFAULT_POLICY, generation);
    const other = net.vms[1]!.peer;
    const from = [OTHER_VM, 50_001];
    const asked = { id: 'v2', to: OTHER_SITE6, port: 443, from };
    expect(await other.do('tcp_connect', asked)).toBe('ok');
    await net.logs();
    await net.arrived();
    const reply = { source: OTHER_SITE6, destination: OTHER_VM };
    await send(tooBig(OTHER_SITE6, quoted(reply, [443, 50_001])));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    expect((await net.arrived()).filter(isIcmp)).toEqual([]);
    await other.do('close', { id: 'v2' });
  });

  test("about the host's own connection do not", async () => {
    const from = [HOST6, 50_002];
    await net.host.do('tcp_connect', { id: 'own', to: UP6, port: 443, from });
    await net.logs();
    await send(tooBig(HOST6, quoted({ source: HOST6, destination: UP6 }, [50_002, 443])));
    expect(causes(await net.logs({ waitS: 5 }))).toEqual(['related']);
    expect(await net.host.do('run', { line: `ip -6 route get ${UP6}` })).not.toContain('mtu');
    await net.host.do('close', { id: 'own' });
  });

  test('of the world about an allowed connection reach the VM, and no others', async () => {
    await connect('web', 50_020);
    const sent = { source: HOST6, destination: SITE6 }; // as the world sees it
    const o = { source: UP6, destination: HOST6 };
    const error = (port: number, mtu: number) =>
      f.ethernet(
        { from: '02:dd:00:00:00:02', to: '02:dd:00:00:00:01' },
        0x86dd,
        f.packet6({ ...o, next: 58 }, f.packetTooBig(o, quoted(sent, [port, 443]), mtu)),
      );
    await guest().do('sniff', { id: 'frames', dev: 'eth0' });
    const arrivedAtVm = async () =>
      ((await guest().do('take', { id: 'frames' })) as string[]).filter(isIcmp);
    // Behind the IP header, the type and 32 bits of MTU.
    const mtuIn = (hex: string) => Number.parseInt(hex.slice(116, 124), 16);
    await net.up.do('frame', { dev: 'up0', frames: [error(50_021, 1300), error(50_020, 1350)] });
    const mtus: number[] = [];
    await expect.poll(async () => mtus.push(...(await arrivedAtVm()).map(mtuIn))).toBe(1);
    expect(mtus).toEqual([1350]);
    expect(await guest().do('say', { id: 'web' })).toBe('echo');
    expect(causes(await net.logs())).toEqual([]);
  });

  test('of the host reach the VM: a link of its own that is narrower', async () => {
    net.run('host', 'ip', 'link', 'set', 'up0', 'mtu', '1320');
    try {
      await connect('web', 50_030);
      await guest().do('bulk', { id: 'web', seconds: 0.3 });
      const line = `ip -6 route get ${SITE6}`;
      await expect.poll(() => guest().do('run', { line })).toMatch(/mtu 1320/);
    } finally {
      net.run('host', 'ip', 'link', 'set', 'up0', 'mtu', '1500');
    }
    expect(causes(await net.logs())).toEqual([]);
  });
});
