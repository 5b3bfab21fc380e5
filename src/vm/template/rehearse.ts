/** What a copy of a machine begins with, done by the machine itself before it is frozen. */
import { setTimeout as delay } from 'node:timers/promises';
import type { NetworkSpec } from '../../../guest-agent/protocol.ts';
import type { QmpClient } from '../../../qmp/index.ts';
import type { GuestSession } from '../../guest/index.ts';
import { DEFAULT_CALL_TIMEOUT_MS, withDeadline } from '../../guest/request.ts';
import type { Accel, WaitOptions } from '../api.ts';
import { portOfChannel } from '../argv.ts';
import { commandSpec } from '../command-spec.ts';
import type { GuestLink } from '../guest-link.ts';
import type { LiveVm } from '../live-vm.ts';
import { guestNetworkOf } from '../network-of.ts';
import type { VmInside } from '../vm-inside.ts';
import { ownIdentityOf } from './own.ts';

/**
 * How often. What V8 compiles and learns in a copy, it does so by code that an emulated processor has to
 * translate first. A function gets machine code at the first call and a regular expression at the second,
 * and where objects of different shapes meet is known after the third; more than that brings nothing. A processor
 * that is none's emulation has nothing to translate.
 */
const ROUNDS: Readonly<Record<Accel, number>> = { tcg: 3, kvm: 1 };
/** From a command's end until the agent has what the next one needs: a shell that waits, among others. */
const SETTLE_MS = 300;
/** From the end of a session to an agent that waits for the next. */
const HANG_UP_MS = 30_000;
/** Of a template without: addresses that nobody has (RFC 5737). */
const ANY_NETWORK: NetworkSpec = {
  ...{ up: true, address: '192.0.2.1', prefix: 31, gateway: '192.0.2.0', dns: [] },
};

/**
 * Does what each clone begins with, from an agent that waits for its host to the end of the first command; a
 * clone that does so for the first time takes half as long again. At the end the agent waits for a host anew,
 * and what execs have started stands still. All that was written so far is on the disk then: a clone that
 * loses its power has what was provisioned, and no clone writes it a second time.
 */
export async function rehearse(
  vm: VmInside,
  { live, client }: { live: LiveVm; client: QmpClient },
  o: WaitOptions,
): Promise<void> {
  await fallAsleep(live, client, o);
  for (let round = 0; round < ROUNDS[live.run.accel]; round += 1) {
    await wakeUp(vm, live, o);
    await fallAsleep(live, client, o);
  }
}

async function wakeUp(vm: VmInside, live: LiveVm, o: WaitOptions): Promise<void> {
  const { hostname, network: mode } = vm.config;
  const network = mode && ((await guestNetworkOf(vm)) ?? ANY_NETWORK);
  const renew = () => ownIdentityOf({ hostname, durable: true, network });
  const session = await live.link.open({ ...o, renew });
  if (network !== undefined) await session.setNetwork({ up: false }, o); // a clone may have none
  await firstCommand(session, vm.id, o);
  await delay(SETTLE_MS, undefined, { signal: o.signal });
}

/** What is measured of copies. */
export async function firstCommand(
  session: GuestSession,
  vmId: string,
  o: WaitOptions,
): Promise<void> {
  const command = await session.exec(commandSpec(['true'], {}), o);
  const { signal, timeoutMs = DEFAULT_CALL_TIMEOUT_MS } = o;
  const bounds = { operation: 'rehearsal', vmId, signal, timeoutMs };
  await withDeadline(command.exit, bounds, () => void command.kill().catch(() => undefined));
}

/** What execs have started is brought to a stop, and our session ended: a copy has nothing in its hands. */
async function fallAsleep(live: LiveVm, client: QmpClient, o: WaitOptions): Promise<void> {
  const session = await live.link.open(o);
  await session.park(o);
  await hangUp(live.link, client, o);
}

/** Ends a session. On virtio-serial, waits until the agent has opened its end anew: only then does it wait for a host. */
export async function hangUp(link: GuestLink, client: QmpClient, o: WaitOptions): Promise<void> {
  const { channel } = link;
  if (channel === undefined) return link.hangUp();
  const reopened = client.waitForEvent('VSERPORT_CHANGE', {
    match: ({ data }) => data.id === portOfChannel(channel) && data.open,
    signal: o.signal,
    timeoutMs: HANG_UP_MS,
  });
  reopened.catch(() => undefined); // where the session does not end, that is what counts
  await link.hangUp();
  await reopened;
}
