/** What all themes of the matrix share: two guests behind taps, the internet, and how one thing that is done is looked at. */
import { expect } from 'vitest';
import { parseIp } from '../../../../src/network/traffic/nflog.ts';
import type { NetworkInfo } from '../../../../src/vm/api.ts';
import type { Peer } from '../../../integration/nft/network.ts';
import { Records } from '../records.ts';
import { OTHER, World } from '../world.ts';

/** Denials are logged at this rate per VM; faster, the log would leave some out. */
export const PACE_MS = 200;
/** Is in what tests send, for those who look for it. */
export const TOKEN = 'TOKEN';
/** All taps' host ends have it. */
export const GATEWAY_MAC = '02:71:6d:70:61:01';

/** Modes without a tap; there is a VM of this name for each. */
const PLAIN_MODES = ['isolated', 'user'];
const TOKEN_HEX = Buffer.from(TOKEN).toString('hex');

/** Whether a frame, as hex, carries it. */
export const carriesToken = (hex: string): boolean => hex.includes(TOKEN_HEX);

/** A guest under test. */
export interface Subject {
  readonly name: string;
  readonly peer: Peer;
  readonly records: Records;
  readonly mac: string;
  readonly address: string;
  readonly gateway: string;
}

/** What is to come of something. */
export interface Wanted {
  /** What the program gets; undefined: does not matter. */
  readonly answer?: string | null;
  /** Its record. Undefined: none at all. */
  readonly record?: Record<string, unknown> | undefined;
  /** Whether anything of it is seen upstream. */
  readonly passes: boolean;
}

/** See above. All of it is gone with it. */
export class Matrix implements AsyncDisposable {
  readonly world: World;
  readonly one: Subject;
  readonly two: Subject;
  readonly internet: Peer;

  private constructor(world: World, internet: Peer, [one, two]: readonly [Subject, Subject]) {
    [this.world, this.internet, this.one, this.two] = [world, internet, one, two];
  }

  static async create(): Promise<Matrix> {
    const world = await World.create();
    try {
      await world.agent('setup', 'network');
      const ports = ['-p', '8080:80', '-p', '203.0.113.1:8081:80', '-p', '5353:53/udp'];
      const create = (name: string, mode: string, ...more: string[]) =>
        world.agent('create', '--network', mode, '--name', name, ...more);
      await Promise.all([
        create('one', 'nat-filtered', ...ports),
        ...PLAIN_MODES.map((mode) => create(mode, mode)),
      ]);
      await world.agent('fork', 'one', '--name', 'two');
      const subjects = [await subjectOf(world, 'one'), await subjectOf(world, 'two')] as const;
      const internet = await world.internetPeer();
      await internet.do('listen', { tcp: [22, 25, 443, 853, 5432, 9418], udp: [123, 443] });
      await internet.do('listen', { address: OTHER, tcp: [53], udp: [53] });
      await internet.do('sniff', { id: 'frames', dev: 'eth0' });
      return new Matrix(world, internet, subjects);
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Does one thing, and looks at what came of it upstream and in the log of one VM. */
  async check(vm: Subject, act: () => Promise<unknown>, wanted: Wanted): Promise<void> {
    await this.internet.do('take', { id: 'frames' });
    vm.records.clear();
    const begunAt = new Date().toISOString(); // what is on record from before may come late
    const takesOfBudget =
      wanted.record?.['kind'] !== 'connection' && wanted.record?.['kind'] !== 'dns';
    const [answer] = await Promise.all([act(), pause(takesOfBudget ? PACE_MS : 0)]);
    if (wanted.answer !== undefined) expect(answer).toBe(wanted.answer);
    if (wanted.record !== undefined) await vm.records.expect(wanted.record);
    const arrived = (await this.internet.do('take', {
      id: 'frames',
      ...(wanted.passes ? { waitS: 2 } : {}),
    })) as string[];
    const { to, toPort } = wanted.record ?? {};
    const isOfIt = (hex: string): boolean => {
      if (carriesToken(hex)) return true;
      const ip = parseIp(Buffer.from(hex, 'hex').subarray(14));
      return to !== undefined && ip?.to === to && (toPort === undefined || ip?.toPort === toPort);
    };
    expect(arrived.some(isOfIt)).toBe(wanted.passes);
    const kind = wanted.record?.['kind'];
    const others = vm.records.all.filter(
      (record) => record.kind !== 'dns' && record.kind !== kind && record.time >= begunAt,
    );
    expect(others).toEqual([]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { records } of [this.one, this.two]) records[Symbol.dispose]();
    await this.world.agent('remove', '--force', 'one', 'two', ...PLAIN_MODES);
    await this.world[Symbol.asyncDispose]();
  }
}

async function subjectOf(world: World, name: string): Promise<Subject> {
  const [text, mac] = await Promise.all([
    world.agent('net', 'show', name, '--json'),
    world.agent('exec', name, '--', 'cat', '/sys/class/net/eth0/address'),
  ]);
  const { guestAddress, gatewayAddress } = JSON.parse(text) as NetworkInfo;
  const peer = await world.guestPeer(name);
  await peer.do('listen', { tcp: [80], udp: [80] });
  await peer.do('sniff', { id: 'frames', dev: 'eth0' });
  return {
    ...{ name, peer, mac: mac.trim(), address: guestAddress!, gateway: gatewayAddress! },
    records: new Records(world, name),
  };
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

export const allowed = (
  to: string,
  toPort: number,
  rule = 'public addresses',
  protocol: 'tcp' | 'udp' = 'tcp',
): Wanted => ({
  answer: protocol === 'tcp' ? 'ok' : 'echo',
  record: { kind: 'connection', protocol, to, toPort, rule },
  passes: true,
});

export const denied = (cause: string, to?: string, toPort?: number, answer?: string): Wanted => ({
  ...(answer === undefined ? {} : { answer }),
  record: {
    ...{ kind: 'denied', cause },
    ...(to === undefined ? {} : { to }),
    ...(toPort === undefined ? {} : { toPort }),
  },
  passes: false,
});

/** A connection of a guest's; kept where it has an id. */
export const connect = (vm: Subject, to: string, port: number, o: object = {}): Promise<unknown> =>
  vm.peer.do('tcp_connect', { to, port, ...o });

/** A datagram of a guest's. What is denied is told by the kernel's ICMP, which it bounds: the rest times out. */
export const datagram = (vm: Subject, to: string, port: number, o: object = {}): Promise<unknown> =>
  vm.peer.do('udp', { to, port, text: TOKEN, timeoutS: 0.5, ...o });
