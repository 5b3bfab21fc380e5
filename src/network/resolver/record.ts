/** The most records of an upstream reply that are looked at. */
export const MAX_RECORDS = 256;

/** One resource record. */
export interface DnsRecord {
  /** In lower case, without the final dot. */
  readonly name: string;
  /** E.g. `CNAME`. */
  readonly type: string;
  readonly ttlSeconds: number;
  /** In the form of dns-packet: a string for an address or a name, an object or buffers else. */
  readonly data: unknown;
}
