/** What of an upstream server's reply goes to the guest, by value. */
import { isIPv4, isIPv6 } from 'node:net';
import { ipv6Text } from '../ipv6-text.ts';
import type { Question, UpstreamReply } from './packet.ts';
import type { DnsRecord } from './record.ts';

/** Longer chains are taken for a loop; BIND gives up after 16, too. */
const MAX_CNAMES = 16;
/** More addresses of one name are left out. */
const MAX_ADDRESSES = 64;
const MAX_NAME_BYTES = 253;

/** The part of a reply that answers the question. */
export interface SiftedAnswer {
  readonly answers: readonly DnsRecord[];
  /** The SOA record of a negative answer, by which the guest may remember it. */
  readonly authorities: readonly DnsRecord[];
  /** Without duplicates. */
  readonly addresses: readonly string[];
  /** Of all records: one outliving another would keep the guest from what has been opened. */
  readonly ttlSeconds: number;
}

/** Bounds of what a guest is told. */
export interface TtlBounds {
  readonly maxTtlSeconds: number;
}

/**
 * Follows the chain of aliases from the name that was asked for, and keeps it and the records of the
 * asked type at its end. Nothing else is kept: records of other names would be somebody's word for what
 * nobody asked.
 *
 * @returns undefined where the reply is not to be passed on: loops, names that are none
 */
export function sift(
  reply: UpstreamReply,
  question: Question,
  { maxTtlSeconds }: TtlBounds,
): SiftedAnswer | undefined {
  const chain = followAliases(reply, question);
  if (chain === undefined) return undefined;
  const found = reply.answers
    .filter((record) => record.type === question.typeName && record.name === chain.end)
    .filter(isFirstOfItsAddress());
  const isNegative = found.length === 0;
  const authorities = isNegative ? reply.authorities.filter((record) => record.type === 'SOA') : [];
  const kept = [...chain.aliases, ...found.slice(0, MAX_ADDRESSES)];
  const soa = authorities.slice(0, 1);
  if (![...kept, ...soa].every(isSound)) return undefined;
  const shortest = Math.min(...[...kept, ...soa].map((record) => record.ttlSeconds), maxTtlSeconds);
  const ttlSeconds = Math.max(1, shortest);
  const withTtl = (record: DnsRecord): DnsRecord => ({ ...record, ttlSeconds });
  return {
    answers: kept.map(withTtl),
    authorities: soa.map(withTtl),
    addresses: kept.filter(isAddress).map(addressOf),
    ttlSeconds,
  };
}

function followAliases(
  reply: UpstreamReply,
  question: Question,
): { aliases: DnsRecord[]; end: string } | undefined {
  const aliases: DnsRecord[] = [];
  let end = question.name;
  if (question.typeName === 'CNAME') return { aliases, end };
  const byOwner = new Map<string, DnsRecord>();
  for (const record of reply.answers) {
    if (record.type === 'CNAME' && !byOwner.has(record.name)) byOwner.set(record.name, record);
  }
  for (let alias = byOwner.get(end); alias !== undefined; alias = byOwner.get(end)) {
    if (aliases.length >= MAX_CNAMES) return undefined;
    aliases.push(alias);
    end = (alias.data as string).toLowerCase();
  }
  return { aliases, end };
}

function isAddress({ type }: DnsRecord): boolean {
  return type === 'A' || type === 'AAAA';
}

/** In one form, whichever the record has: whoever sees a packet to it looks its name up by that. */
function addressOf({ type, data }: DnsRecord): string {
  return type === 'AAAA' ? ipv6Text(data as string) : (data as string);
}

/** For a filter that leaves out addresses that came before. */
function isFirstOfItsAddress(): (record: DnsRecord) => boolean {
  const seen = new Set<unknown>();
  return (record) => {
    const { data } = record;
    if (!isAddress(record)) return true;
    if (seen.has(data)) return false;
    seen.add(data);
    return true;
  };
}

/**
 * Whether a record can be written as it was read. dns-packet reads names as text, so one with odd bytes
 * would come out as another, or as a label too long for its length byte.
 */
function isSound(record: DnsRecord): boolean {
  if (!isSoundName(record.name)) return false;
  const data = record.data as Record<string, unknown>;
  switch (record.type) {
    case 'A':
      return isIPv4(String(record.data));
    case 'AAAA':
      return isIPv6(String(record.data)) && !String(record.data).includes('%');
    case 'CNAME':
    case 'NS':
    case 'PTR':
      return isSoundName(record.data);
    case 'MX':
      return isSoundName(data['exchange']);
    case 'SRV':
      return isSoundName(data['target']);
    case 'SOA':
      // The second is a mailbox, with dots behind backslashes that are no labels' ends.
      return isSoundName(data['mname']) && isSoundName(data['rname']);
    default:
      return true;
  }
}

function isSoundName(name: unknown): boolean {
  if (typeof name !== 'string' || name.length > MAX_NAME_BYTES) return false;
  if (name === '' || name === '.') return true;
  return /^[!-~]+$/.test(name) && name.split('.').every((label) => /^.{1,63}$/.test(label));
}

/** The size of the records' data, roughly as on the wire. */
export function dataBytes(records: readonly DnsRecord[]): number {
  return records.reduce((sum, record) => sum + sizeOf(record.data), 0);
}

function sizeOf(data: unknown): number {
  if (typeof data === 'string' || Buffer.isBuffer(data)) return data.length;
  if (typeof data === 'number' || typeof data === 'boolean') return 2;
  if (typeof data !== 'object' || data === null) return 0;
  return Object.values(data).reduce((sum: number, value) => sum + sizeOf(value), 0);
}
