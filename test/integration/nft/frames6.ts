/** Frames of IPv6, honest but for what a case changes, and what is to become of them. */
import type { DenialCause } from '../../../nft/index.ts';
import * as f from './frames.ts';
import { SITE6 } from './network.ts';
import type { Outcome } from './outcome.ts';

export const GUEST = 'fd00:210::1';
export const GATEWAY = 'fd00:210::';
export const OTHER_VM = 'fd00:210::3';
export const OTHER_GATEWAY = 'fd00:210::2';

export const HONEST = { from: '02:bb:00:00:00:01', to: '02:aa:00:00:00:01' };
export const IP6 = 0x86dd;
export const [TCP, UDP, ICMP6] = [6, 17, 58];
export const [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, NOTHING] = [0, 43, 44, 60, 59];

export type Addresses = Partial<{ source: string; destination: string }>;
export const ends = (o: Addresses) => ({ source: GUEST, destination: SITE6, ...o });
export const packet = (o: Partial<f.Ip6Options>, payload: Buffer): Buffer =>
  f.packet6({ ...ends(o), next: UDP, ...o }, payload);
/** What the default policy denies by `policy` where nothing else does; with a token to look for. */
export const datagram = (o: Partial<f.Ip6Options> = {}): Buffer =>
  packet(o, f.udp(ends(o), 4000, 443, 'TOKEN'));
export const segment = (o: Addresses = {}, flags = f.SYN, port = 40_000): Buffer =>
  f.tcp(ends(o), port, 443, flags, 'TOKEN');
/** What it allows. */
export const syn = (o: Partial<f.Ip6Options> = {}, flags = f.SYN, port = 40_000): Buffer =>
  packet({ next: TCP, ...o }, segment(o, flags, port));
export const icmp = (o: Partial<f.Ip6Options>, type: number, rest: Buffer): Buffer =>
  packet({ next: ICMP6, ...o }, f.icmp6(ends(o), type, 0, rest));
export const frame = (payload: Buffer, tags: readonly [number, number][] = []): string =>
  f.ethernet(HONEST, IP6, payload, tags);
/** To a group: by its MAC address too. */
export const toGroup = (payload: Buffer, group = '00:00:00:01'): string =>
  f.ethernet({ ...HONEST, to: `33:33:${group}` }, IP6, payload);

export type FrameCase = [name: string, frame: string, outcome: Outcome];
export const deny = (cause: DenialCause): Outcome => ({ deny: cause });
export const allow: Outcome = { allow: 1 };
