/**
 * From what a user allows and denies to a VM's rules and to what its resolver answers. Pure.
 *
 * Where names are allowed they are all that is: the public addresses are open no more, and what is open are the
 * addresses that the resolver has handed to this VM.
 */
import {
  DEFAULT_POLICY,
  firstMeeting,
  MAX_PORTS,
  MAX_RULES,
  MAX_TITLE_BYTES,
  numberRules,
  parseCidr6,
  RESERVED_RANGES,
  RESERVED_RANGES6,
  UNROUTABLE_RANGES,
  UNROUTABLE_RANGES6,
  versionOf,
  type EgressDestination,
  type NetworkPolicy,
  type PortRange,
  type RuleDraft,
} from '../../nft/index.ts';
import { ConfigError } from '../errors.ts';
import { makeLimits, type LimitOptions } from './limits.ts';
import { meet, parsePattern } from './resolver/names.ts';

/** What a VM may reach. All of it can be changed while it runs. */
export interface EgressOptions {
  /**
   * Names that may be looked up and connected to: `example.org`, `*.example.org` (all below it), each with a
   * port or not (`example.org:8443`). Where there is one, nothing else is open. Default none.
   */
  readonly allowDomains?: readonly string[] | undefined;
  /** Names that are not looked up. Default none. */
  readonly denyDomains?: readonly string[] | undefined;
  /**
   * Addresses or CIDRs, with a port or not (`10.1.2.3:5432`, `[fd00::/64]:5432`), private ones too; of IPv6 for VMs
   * that have it. Default none.
   */
  readonly allowCidrs?: readonly string[] | undefined;
  /** Addresses or CIDRs that stay shut whatever else is allowed. Default none. */
  readonly denyCidrs?: readonly string[] | undefined;
  /** Ports besides those of web, ssh and git: `8080`, `8000-8010`, `443/udp`. Default none. */
  readonly allowPorts?: readonly string[] | undefined;
  /** Whether public addresses are open. Default: where no names are allowed. */
  readonly public?: boolean | undefined;
  /** How a denial shows: `reject` at once, `drop` never. Default `reject`. */
  readonly denial?: 'reject' | 'drop' | undefined;
  /** Bounds. Default: see {@link LimitOptions}. */
  readonly limits?: LimitOptions | undefined;
}

/** What a VM's policy comes to. */
export interface VmPolicy {
  readonly rules: NetworkPolicy;
  /** The largest id of a rule so far, see `numberRules`. */
  readonly lastId: number;
  /** Which names open their addresses to which rule. */
  readonly names: readonly NamedRule[];
  /** Undefined: every name. */
  readonly allowDomains: readonly string[] | undefined;
  readonly denyDomains: readonly string[];
}

/** A rule whose addresses the resolver fills in. */
export interface NamedRule {
  readonly pattern: string;
  readonly ruleId: number;
}

/** Web, ssh and git. */
const USUAL_PORTS: readonly PortRange[] = [80, 443, 22, 9418];
/** Stands for what is left out of a long title. */
const GAP = '...';
const CIDR_HINT =
  'Give an address, or a network by its first address, e.g. 10.1.2.3, 10.1.0.0/16, 2001:db8::/32, [2001:db8::1]:443.';
const PORT = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/;
const RESERVED = [...RESERVED_RANGES, ...RESERVED_RANGES6];

/**
 * @param before the policy that this one takes the place of: its rules keep their ids
 * @param vm.hasIpv6 default false: the host's own networks are none of its public addresses
 * @throws ConfigError a field, its value, and what would be right
 */
export function makePolicy(
  o: EgressOptions,
  before?: VmPolicy,
  { hasIpv6 = false }: { readonly hasIpv6?: boolean | undefined } = {},
): VmPolicy {
  const ports = (o.allowPorts ?? []).map((text) => parsePort('allowPorts', text, text));
  checkPorts(ports);
  const denyDomains = (o.denyDomains ?? []).map((text) => parseName('denyDomains', text));
  const domains = (o.allowDomains ?? []).map((text) => withPorts('allowDomains', text, readName));
  const allowed = (o.allowCidrs ?? []).map((text) =>
    withPorts('allowCidrs', text, readDestination),
  );
  const denied = (o.denyCidrs ?? []).map((text) => readCidr('denyCidrs', text));
  const isPublic = o.public ?? domains.length === 0;
  if (o.denial !== undefined && o.denial !== 'reject' && o.denial !== 'drop')
    fail('denial', String(o.denial), 'Give reject or drop.');
  const extra = (protocol: 'tcp' | 'udp') =>
    ports.filter((port) => port.protocol === protocol).map(({ range }) => range);
  const open = (title: string, destination: EgressDestination, own?: PortRange): RuleDraft[] => {
    const tcp = own === undefined ? [...USUAL_PORTS, ...extra('tcp')] : [own];
    const udp = own === undefined ? extra('udp') : [];
    const rule = { title, action: 'allow', destination } as const;
    return [
      { ...rule, protocol: 'tcp', ports: tcp },
      ...(udp.length === 0 ? [] : [{ ...rule, protocol: 'udp', ports: udp } as const]),
    ];
  };
  const names = domains.map((domain) => ({
    pattern: domain.value,
    drafts: open(
      titleOf('--allow-domain', domain.text),
      { kind: 'dynamic', of: namesOf(domain.value, denyDomains) },
      domain.port,
    ),
  }));
  const draftsOf = {
    denyCidrs: denied.flatMap((cidr) =>
      denyAll(`--deny-cidr ${cidr}`, { kind: 'addresses', cidrs: [cidr] }),
    ),
    allowCidrs: allowed.flatMap(({ text, value, port }) =>
      open(titleOf('--allow-cidr', text), { kind: 'addresses', cidrs: [value] }, port),
    ),
    allowDomains: names.flatMap((name) => name.drafts),
    hostNetworks: isPublic && hasIpv6 ? denyHostNetworks() : [],
    public: isPublic ? open('public addresses', { kind: 'public' }) : [],
  };
  checkRoom(draftsOf);
  const drafts = Object.values(draftsOf).flat();
  const known = before?.rules ?? { rules: [], published: [] };
  const numbered = numberRules(
    { rules: drafts, published: [] },
    { before: known, lastId: before?.lastId ?? 0 },
  );
  const ids = new Map(drafts.map((draft, index) => [draft, numbered.rules[index]?.id ?? 0]));
  return {
    rules: {
      ...DEFAULT_POLICY,
      rules: numbered.rules,
      exceptions: allowed.map(({ value }) => value).filter(isReserved),
      denial: o.denial ?? DEFAULT_POLICY.denial,
      limits: makeLimits(o.limits),
    },
    lastId: numbered.lastId,
    names: names.flatMap(({ pattern, drafts: own }) =>
      own.map((draft) => ({ pattern, ruleId: ids.get(draft) ?? 0 })),
    ),
    allowDomains: isPublic ? undefined : domains.map(({ value }) => value),
    denyDomains,
  };
}

/**
 * Which names a rule's addresses are of. One that is denied from now on makes it another rule: which of the addresses
 * that are open were that name's nobody knows, so that all of them are asked for anew.
 */
function namesOf(pattern: string, denied: readonly string[]): string {
  const within = denied.filter((other) => meet(pattern, other));
  return [pattern, ...new Set(within)].sort().join(' but not ');
}

function denyAll(title: string, destination: EgressDestination): RuleDraft[] {
  return (['tcp', 'udp', 'icmp'] as const).map((protocol) => ({
    title,
    action: 'deny',
    protocol,
    ports: [],
    destination,
  }));
}

/** Which networks these are changes while the VM runs: see host-networks.ts. */
function denyHostNetworks(): RuleDraft[] {
  return denyAll("the host's own networks", { kind: 'host-networks' });
}

/** What a rule is called: the flag that it comes from, its middle left out where it is too long for the kernel. */
function titleOf(flag: string, text: string): string {
  const title = `${flag} ${text}`;
  if (Buffer.byteLength(title) <= MAX_TITLE_BYTES) return title;
  const cut = (half: number) => title.slice(0, half) + GAP + title.slice(-half);
  let half = Math.floor((MAX_TITLE_BYTES - GAP.length) / 2);
  while (Buffer.byteLength(cut(half)) > MAX_TITLE_BYTES) half -= 1; // letters of several bytes
  return cut(half);
}

/** Whether a VM's rules have room for what each field comes to. */
function checkRoom(draftsOf: Readonly<Record<string, readonly RuleDraft[]>>): void {
  const counts = Object.entries(draftsOf).map(([field, { length }]) => [field, length] as const);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  if (total <= MAX_RULES) return;
  const [name, most] = counts.reduce((one, other) => (other[1] > one[1] ? other : one));
  const field = `network.${name}`;
  const own = draftsOf['hostNetworks']?.length ? ', the host’s own networks take 3 more' : '';
  throw new ConfigError(
    `${field} makes ${most} of ${total} rules; a VM has room for ${MAX_RULES} (a network that is denied takes 3${own})`,
    {
      ...{ field, value: most },
      hint: 'Give fewer and larger networks, and *.example.org for all names below one.',
    },
  );
}

function checkPorts(ports: readonly { protocol: 'tcp' | 'udp' }[]): void {
  for (const [protocol, usual] of [
    ['tcp', USUAL_PORTS.length],
    ['udp', 0],
  ] as const) {
    const room = MAX_PORTS - usual;
    const count = ports.filter((port) => port.protocol === protocol).length;
    if (count <= room) continue;
    const field = 'network.allowPorts';
    throw new ConfigError(`${field} has ${count} ports of ${protocol}; there is room for ${room}`, {
      ...{ field, value: count },
      hint: 'Give ranges, e.g. 8000-8010.',
    });
  }
}

interface WithPort {
  readonly text: string;
  readonly value: string;
  readonly port: PortRange | undefined;
}

/** @param split what it opens, and a port where one is given */
function withPorts(
  field: string,
  text: string,
  split: (field: string, text: string) => { value: string; port: string | undefined },
): WithPort {
  const { value, port } = split(field, text);
  return { text, value, port: port === undefined ? undefined : parsePort(field, text, port).range };
}

function readName(field: string, text: string) {
  const [name = '', port, ...more] = text.split(':');
  if (more.length > 0) fail(field, text, 'Give a name, and at most one port; addresses are CIDRs.');
  return { value: parseName(field, name), port };
}

/** The colons of IPv6 leave none for a port: then it is in brackets, as in URLs (RFC 3986). */
function readDestination(field: string, text: string) {
  const [, bracketed, portOfBracketed] = /^\[([^\]]*)\](?::(.*))?$/.exec(text) ?? [];
  if (bracketed !== undefined) {
    if (parseCidr6(bracketed) === undefined)
      fail(field, text, `Only IPv6 is in brackets. ${CIDR_HINT}`);
    return { value: readOpened(field, bracketed), port: portOfBracketed };
  }
  const [, cidr, port] = /^(.*\/\d+):(.+)$/.exec(text) ?? [];
  if (parseCidr6(cidr ?? '') !== undefined)
    fail(field, text, `Put what has a port in brackets: [${cidr}]:${port}.`);
  if (text.split(':').length > 2) return { value: readOpened(field, text), port: undefined };
  const [address = '', ofAddress] = text.split(':');
  return { value: readOpened(field, address), port: ofAddress };
}

/** @param text what the port is a part of */
function parsePort(
  field: string,
  text: string,
  port: string,
): { range: PortRange; protocol: 'tcp' | 'udp' } {
  const [, first = '', last = first, protocol = 'tcp'] = PORT.exec(port) ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (first === '' || from < 1 || to > 65_535 || from > to) {
    fail(
      field,
      text,
      'Give a port from 1 to 65535, or two with "-" between, e.g. 8080, 8000-8010, 443/udp.',
    );
  }
  return { range: from === to ? from : [from, to], protocol: protocol as 'tcp' | 'udp' };
}

/** As the resolver has it: in lower case, and in ASCII where it is international. */
function parseName(field: string, text: string): string {
  const { below, name } = parsePattern(text, `network.${field}`);
  // `*` would open every address that any name leads to: that is what `public` says.
  if (name === '')
    fail(field, text, 'Give a name such as example.org, or *.example.org for all below it.');
  return below ? `*.${name}` : name;
}

/** As the rules have it. */
function readCidr(field: string, text: string): string {
  if (versionOf(text) === undefined) return fail(field, text, CIDR_HINT);
  return text.replace(text.includes(':') ? /\/128$/ : /\/32$/, '');
}

/** One that is to be opened. */
function readOpened(field: string, text: string): string {
  const cidr = readCidr(field, text);
  const nowhere = versionOf(cidr) === 4 ? UNROUTABLE_RANGES : UNROUTABLE_RANGES6;
  if (firstMeeting(cidr, nowhere) !== undefined) {
    fail(
      field,
      text,
      `Give a network that a router forwards to: nothing of ${nowhere.join(', ')} leaves a VM.`,
    );
  }
  return cidr;
}

/** Whether no rule opens it unless it is an exception. */
function isReserved(cidr: string): boolean {
  return firstMeeting(cidr, RESERVED) !== undefined;
}

/**
 * Whether such a VM can have it: it makes a policy, and one without IPv6 is not asked to open something of it. What is to
 * stay shut may be of any family: it does.
 * @returns the policy
 * @throws ConfigError as of {@link makePolicy}; field `network.allowCidrs`
 */
export function checkReach(
  o: EgressOptions,
  { hasIpv6, before }: { hasIpv6: boolean; before?: VmPolicy },
): VmPolicy {
  const policy = makePolicy(o, before, { hasIpv6 });
  if (hasIpv6) return policy;
  const isV6 = (text: string) => versionOf(readDestination('allowCidrs', text).value) === 6;
  const text = (o.allowCidrs ?? []).find(isV6);
  if (text === undefined) return policy;
  const field = 'network.allowCidrs';
  throw new ConfigError(`${field} has ${JSON.stringify(text)}, and the VM has no IPv6`, {
    ...{ field, value: text },
    hint: 'Make the VM with IPv6 (--ipv6), or leave the address out.',
  });
}

function fail(field: string, value: string, hint: string): never {
  throw new ConfigError(`network.${field} has ${JSON.stringify(value)}`, {
    field: `network.${field}`,
    value,
    hint,
  });
}
