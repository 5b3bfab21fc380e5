/** The VM's network device, as the host wants it: one call sets all there is, however often it is made. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import { addressText } from './ip-address.ts';
import { ipProgram } from './ip-program.ts';
import { libc, type Libc } from './libc.ts';
import {
  addAddress,
  addV6Address,
  batch,
  defaultRoute,
  deleteAddress,
  linkDown,
  linkUp,
  listAddresses,
  parseReplies,
  permanentNeighbour,
  type InterfaceAddress,
  type NetlinkMessage,
  type NetlinkReply,
} from './netlink.ts';
import type { NetworkSpec, NetworkUp } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { writeResolvConf } from './resolv-conf.ts';

const INTERFACES = '/sys/class/net';
const IPV6_SETTINGS = '/proc/sys/net/ipv6/conf';
const RESOLV_CONF = '/etc/resolv.conf';
/** Longer than any datagram of a dump (NLMSG_GOODSIZE and what the kernel grows it to). */
const DATAGRAM_BYTES = 64 * 1024;
/** The request was well-formed, and the guest could not do it. */
const FAILED = 500;

/** Settings of IPv6 (the kernel's ip-sysctl), in order: none of its own accord, and then none at all. */
const OFF = { disable_ipv6: '1', accept_ra: '0' };
/** The address that it is given and no other, no question to its neighbours, and no router heeded. */
const ON = {
  addr_gen_mode: '1',
  accept_ra: '0',
  accept_dad: '0',
  dad_transmits: '0',
  disable_ipv6: '0',
};
/** Of interfaces that come later: the guest's own are as the kernel has them. */
const OTHERS_ON = { disable_ipv6: '0', accept_ra: '1' };

/** One thing that is asked of the kernel, and how an error calls it. */
interface Step {
  readonly what: string;
  readonly message: NetlinkMessage;
  /** errnos that mean that it is so already. */
  readonly done?: readonly string[];
}

/**
 * What we have done already: a clone, whose processor is emulated, has to translate all that runs for the
 * first time, and goes on from a guest in which this was rehearsed.
 */
const done = {
  /** The last time we have taken the interface down and its addresses away. */
  isEmpty: false,
  /** The interface, and whether it has IPv6. */
  ipv6: '',
};

/** @throws RequestError the errno's name as its code, and in words what could not be done */
export async function setNetwork(spec: NetworkSpec): Promise<void> {
  const name = theInterface();
  if (spec.up) attempt('IPv6 cannot be set', () => setIpv6(name, spec));
  const calls = await libc().catch(() => undefined);
  if (calls === undefined) await ipProgram(name, spec);
  else setByNetlink(calls, name, spec);
  if (spec.up && spec.dns.length > 0)
    attempt(`${RESOLV_CONF} cannot be written`, () => writeResolvConf(RESOLV_CONF, spec.dns));
}

/** The one with a device below it: others are the guest's own. */
function theInterface(): string {
  const name = readdirSync(INTERFACES).find((one) => existsSync(`${INTERFACES}/${one}/device`));
  if (name !== undefined) return name;
  const why = 'it was made without, or the kernel has no driver (virtio_net)';
  throw new RequestError('ENODEV', `the VM has no network device: ${why}`, FAILED);
}

/** The loopback interface keeps its ::1: programs listen there, and it leads nowhere. */
function setIpv6(name: string, { v6, mtu }: NetworkUp): void {
  const isOn = v6 !== undefined;
  const setting = `${name} ${isOn}`;
  if (done.isEmpty && done.ipv6 === setting) return;
  if (!existsSync(IPV6_SETTINGS)) {
    if (!isOn) return;
    throw Object.assign(new Error('the kernel has none'), { code: 'EAFNOSUPPORT' });
  }
  writeSettings('default', isOn ? OTHERS_ON : OFF);
  // Of an interface whose packets are too small for IPv6 there are none, until it is of another size.
  if (isOn && mtu !== undefined && !existsSync(`${IPV6_SETTINGS}/${name}`))
    writeFileSync(`${INTERFACES}/${name}/mtu`, String(mtu));
  writeSettings(name, isOn ? ON : OFF);
  done.ipv6 = setting;
}

function writeSettings(of: string, settings: Readonly<Record<string, string>>): void {
  if (!existsSync(`${IPV6_SETTINGS}/${of}`)) return;
  for (const [setting, value] of Object.entries(settings))
    writeFileSync(`${IPV6_SETTINGS}/${of}/${setting}`, value);
}

function setByNetlink(calls: Libc, name: string, spec: NetworkSpec): void {
  const index = Number(readFileSync(`${INTERFACES}/${name}/ifindex`, 'latin1'));
  const fd = calls.openRtnetlink();
  try {
    const all = done.isEmpty ? [] : readAddresses(calls, fd);
    done.isEmpty = false;
    const old = all.filter((address) => address.index === index);
    perform(calls, fd, stepsTo(spec, { name, index, old }));
    done.isEmpty = !spec.up;
  } finally {
    calls.close(fd);
  }
}

/** Down first, which takes routes and neighbours away; then the addresses; then all that is new. */
function stepsTo(
  spec: NetworkSpec,
  { name, index, old }: { name: string; index: number; old: readonly InterfaceAddress[] },
): Step[] {
  const steps: Step[] = [
    { what: `${name} cannot be taken down`, message: linkDown(index) },
    ...old.map((address) => ({
      what: `the address ${addressText(address.local)} cannot be taken away`,
      message: deleteAddress(address),
      done: ['EADDRNOTAVAIL'], // it went with the one before it
    })),
  ];
  if (!spec.up) return steps;
  const { address, prefix, v6 } = spec;
  steps.push(
    { what: `${name} cannot be brought up`, message: linkUp(index, spec) },
    { what: `the address ${address}/${prefix} cannot be set`, message: addAddress(index, spec) },
    ...stepsOut(index, spec),
  );
  if (v6 === undefined) return steps;
  const what = `the address ${v6.address}/${v6.prefix} cannot be set`;
  steps.push({ what, message: addV6Address(index, v6) }, ...stepsOut(index, v6));
  return steps;
}

/** The way out by a gateway. */
function stepsOut(
  index: number,
  { gateway, gatewayMac }: Pick<NetworkUp, 'gateway' | 'gatewayMac'>,
): Step[] {
  if (gateway === undefined) return [];
  const what = `the default route by ${gateway} cannot be set`;
  const route = { what, message: defaultRoute(index, gateway) };
  if (gatewayMac === undefined) return [route];
  const message = permanentNeighbour(index, gateway, gatewayMac);
  return [{ what: `the neighbour ${gateway} cannot be set`, message }, route];
}

function readAddresses(calls: Libc, fd: number): InterfaceAddress[] {
  calls.send(fd, batch([listAddresses()]));
  const found: InterfaceAddress[] = [];
  for (;;) {
    for (const reply of receive(calls, fd)) {
      if (reply.kind === 'end') return found;
      if (reply.kind === 'ack') throw refused('the addresses cannot be listed', reply.errno);
      found.push(reply.address);
    }
  }
}

function perform(calls: Libc, fd: number, steps: readonly Step[]): void {
  calls.send(fd, batch(steps.map(({ message }) => message)));
  for (;;) {
    for (const reply of receive(calls, fd)) {
      if (reply.kind !== 'ack') continue;
      const step = steps[reply.sequence - 1];
      if (reply.errno !== 0 && step?.done?.includes(nameOf(reply.errno)) !== true)
        throw refused(step?.what ?? 'the network cannot be set', reply.errno);
      if (reply.sequence === steps.length) return;
    }
  }
}

function receive(calls: Libc, fd: number): NetlinkReply[] {
  const datagram = Buffer.allocUnsafe(DATAGRAM_BYTES);
  return parseReplies(datagram.subarray(0, calls.receive(fd, datagram)));
}

function nameOf(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[0] ?? `E${errno}`;
}

function refused(what: string, errno: number): RequestError {
  const code = nameOf(errno);
  const text = getSystemErrorMap().get(-errno)?.[1];
  return new RequestError(
    code,
    `${what}: ${code}${text === undefined ? '' : ` (${text})`}`,
    FAILED,
  );
}

function attempt(what: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new RequestError(code, `${what}: ${message}`, FAILED);
  }
}
