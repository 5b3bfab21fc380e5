/** Whether the rules of a VM can be made at all. Nothing that did not pass here reaches the kernel. */
import { NetworkPolicyError } from '../src/errors.ts';
import {
  contains,
  firstMeeting,
  parseAddress,
  parseAddress6,
  parseCidr,
  versionOf,
} from './address.ts';
import { MAX_GENERATION, MAX_RULE_ID } from './marks.ts';
import {
  type EgressRule,
  type NetworkLimits,
  type NetworkPolicy,
  type PortRange,
  UNROUTABLE_RANGES,
  UNROUTABLE_RANGES6,
  type VmAddresses6,
  type VmNetwork,
} from './policy.ts';

/** Most rules of one VM, published ports included. */
export const MAX_RULES = 256;
/** Most CIDRs of one rule, and most exceptions. */
export const MAX_CIDRS = 4096;
/** Most ports or ranges of ports of one rule. */
export const MAX_PORTS = 64;
/** Bytes of a title: it becomes the comment of a rule, which has room for 128. */
export const MAX_TITLE_BYTES = 100;
/** Of all limits: nft keeps them as 64 bits, but a burst has 32. */
export const MAX_LIMIT = 2 ** 31 - 1;

const UNROUTABLE = [...UNROUTABLE_RANGES, ...UNROUTABLE_RANGES6];
const ADDRESS_HINT = 'give an IPv4 address such as 10.210.0.3';
const ADDRESS6_HINT = 'give an IPv6 address such as fd00::3';

/**
 * @throws NetworkPolicyError names the field, its value, and what would be right
 */
export function checkVm(vm: VmNetwork): void {
  checkTap(vm.tap);
  // A group address is no sender's; the second digit of the first byte has the bit.
  if (!/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i.test(vm.mac) || /^(00:){5}00$/.test(vm.mac)) {
    fail('mac', vm.mac, 'is no MAC address of one machine', 'give one such as 02:00:00:00:00:01');
  }
  checkHostAddress('guestAddress', vm.guestAddress);
  checkHostAddress('gatewayAddress', vm.gatewayAddress);
  if (vm.guestAddress === vm.gatewayAddress) {
    fail('gatewayAddress', vm.gatewayAddress, "is the guest's", 'give both ends their own address');
  }
  if (vm.v6 !== undefined) checkAddresses6(vm.v6);
  checkInteger('generation', vm.generation, 0, MAX_GENERATION);
  checkPolicy(vm.policy);
}

/** @throws NetworkPolicyError the name cannot be used for a tap */
export function checkTap(tap: string): void {
  if (/^[a-z][a-z0-9_-]{0,14}$/i.test(tap)) return;
  fail(
    'tap',
    tap,
    'is no name for a tap',
    'use a letter and then up to 14 letters, digits, "_" and "-"',
  );
}

/** @throws NetworkPolicyError */
export function checkPolicy(policy: NetworkPolicy): void {
  const { rules, exceptions, published } = policy;
  if (policy.mode === 'isolated' && rules.length > 0) {
    fail(
      'policy.rules',
      rules.length,
      'has rules though the VM is isolated',
      'use nat-filtered, or no rules',
    );
  }
  if (rules.length + published.length > MAX_RULES) {
    fail(
      'policy.rules',
      rules.length,
      `is more than ${MAX_RULES} rules`,
      'put addresses into one rule',
    );
  }
  const ids = new Set<number>();
  rules.forEach((rule, index) => {
    checkId(`policy.rules[${index}].id`, rule.id, ids);
    checkRule(`policy.rules[${index}]`, rule);
  });
  published.forEach((port, index) => {
    checkId(`policy.published[${index}].id`, port.id, ids);
    checkInteger(`policy.published[${index}].port`, port.port, 1, 65535);
  });
  checkPublishedOnce(policy);
  checkExceptions(exceptions);
  checkLimits(policy.limits);
}

/** @throws NetworkPolicyError */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  fail(name, value, 'is out of range', `give a whole number from ${min} to ${max}`);
}

function checkId(name: string, id: number, seen: Set<number>): void {
  checkInteger(name, id, 1, MAX_RULE_ID);
  if (seen.has(id)) fail(name, id, 'is taken', 'give each rule and published port its own id');
  seen.add(id);
}

function checkRule(name: string, { title, protocol, ports, destination }: EgressRule): void {
  if (Buffer.byteLength(title) > MAX_TITLE_BYTES || /[\u0000-\u001f\u007f]/.test(title)) {
    fail(
      `${name}.title`,
      title,
      'cannot be shown',
      `use at most ${MAX_TITLE_BYTES} bytes, no control characters`,
    );
  }
  if (protocol === 'icmp' && ports.length > 0) {
    fail(`${name}.ports`, ports, 'are ports of ICMP, which has none', 'leave them out');
  }
  if (ports.length > MAX_PORTS) {
    fail(`${name}.ports`, ports.length, `are more than ${MAX_PORTS}`, 'use ranges');
  }
  ports.forEach((port, index) => checkPorts(`${name}.ports[${index}]`, port));
  if (destination.kind === 'addresses') checkCidrs(`${name}.destination.cidrs`, destination.cidrs);
}

function checkPorts(name: string, port: PortRange): void {
  const [first, last] = typeof port === 'number' ? [port, port] : port;
  checkInteger(name, first, 1, 65535);
  checkInteger(name, last, first, 65535);
}

function checkPublishedOnce({ published }: NetworkPolicy): void {
  const seen = new Set<string>();
  for (const { protocol, port } of published) {
    const key = `${port}/${protocol}`;
    if (seen.has(key)) fail('policy.published', key, 'is there twice', 'publish each port once');
    seen.add(key);
  }
}

function checkCidrs(name: string, cidrs: readonly string[]): void {
  if (cidrs.length === 0) fail(name, cidrs, 'is empty', 'name an address, or leave the rule out');
  if (cidrs.length > MAX_CIDRS) {
    fail(name, cidrs.length, `are more than ${MAX_CIDRS}`, 'use larger ranges');
  }
  cidrs.forEach((cidr, index) => {
    if (versionOf(cidr) !== undefined) return;
    const hint = 'give an address or CIDR without bits behind its prefix, e.g. 192.0.2.0/24';
    fail(`${name}[${index}]`, cidr, 'is no range of IP addresses', hint);
  });
}

function checkExceptions(exceptions: readonly string[]): void {
  if (exceptions.length === 0) return;
  checkCidrs('policy.exceptions', exceptions);
  exceptions.forEach((cidr, index) => {
    const bad = firstMeeting(cidr, UNROUTABLE);
    if (bad === undefined) return;
    const hint = 'name a host or network that a router would forward to';
    fail(`policy.exceptions[${index}]`, cidr, `reaches into ${bad}, which never leaves a VM`, hint);
  });
}

function checkLimits(limits: NetworkLimits): void {
  for (const [key, value] of Object.entries(limits) as [string, number | undefined][]) {
    if (value !== undefined) checkInteger(`policy.limits.${key}`, value, 1, MAX_LIMIT);
  }
  if (limits.newConnectionsBurst !== undefined && limits.newConnectionsPerSecond === undefined) {
    const hint = 'give newConnectionsPerSecond too';
    fail('policy.limits.newConnectionsBurst', limits.newConnectionsBurst, 'has no rate', hint);
  }
}

function checkHostAddress(name: string, address: string): void {
  const value = parseAddress(address);
  if (value === undefined) return fail(name, address, 'is no IPv4 address', ADDRESS_HINT);
  const range = { first: value, last: value };
  if (UNROUTABLE_RANGES.some((cidr) => contains(parseCidr(cidr)!, range))) {
    fail(name, address, 'is no address of a machine', ADDRESS_HINT);
  }
}

function checkAddresses6(v6: VmAddresses6): void {
  for (const name of ['guestAddress', 'gatewayAddress'] as const) {
    const value = parseAddress6(v6[name]);
    if (value === undefined) fail(`v6.${name}`, v6[name], 'is no IPv6 address', ADDRESS6_HINT);
    if (firstMeeting(v6[name], UNROUTABLE_RANGES6) !== undefined) {
      fail(`v6.${name}`, v6[name], 'is no address of a machine', ADDRESS6_HINT);
    }
  }
  if (parseAddress6(v6.guestAddress) === parseAddress6(v6.gatewayAddress)) {
    fail(
      'v6.gatewayAddress',
      v6.gatewayAddress,
      "is the guest's",
      'give both ends their own address',
    );
  }
}

/** Refuses a field. */
export function fail(field: string, value: unknown, problem: string, hint: string): never {
  throw new NetworkPolicyError(`${field}: ${JSON.stringify(value)} ${problem}`, {
    field,
    value,
    hint,
  });
}
