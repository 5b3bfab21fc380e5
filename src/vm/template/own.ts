/** Making a copy of a guest a machine of its own: what the host gives for it. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { RenewSpec } from '../../../guest-agent/protocol.ts';
import { GuestConnectError } from '../../errors.ts';
import { freshEntropy } from '../entropy.ts';
import type { LiveVm } from '../live-vm.ts';

const MACHINE_ID_BYTES = 16;

/** All that a machine must not share with its copies. */
export function ownIdentityOf(hostname: string, durable: boolean): RenewSpec {
  return {
    entropy: freshEntropy().toString('base64'),
    unixMs: Date.now(),
    hostname,
    machineId: randomBytes(MACHINE_ID_BYTES).toString('hex'),
    bootId: randomUUID(),
    durable,
  };
}

/** @throws GuestConnectError the clone must not be used: it still is its template */
export async function becomeOwn(
  live: LiveVm,
  o: {
    id: string;
    hostname: string;
    /** It stays, and may be started anew from its disk. */
    persistent: boolean;
    deadline: number;
    /** What to do where it fails. */
    hint: string;
    signal?: AbortSignal | undefined;
  },
): Promise<void> {
  const { fault } = live.watch;
  const signal = o.signal ? AbortSignal.any([fault, o.signal]) : fault;
  const timeoutMs = Math.max(1, Math.ceil(o.deadline - performance.now()));
  try {
    const session = await live.link.open({ signal, timeoutMs });
    await session.renew(ownIdentityOf(o.hostname, o.persistent), { signal, timeoutMs });
  } catch (cause) {
    o.signal?.throwIfAborted();
    fault.throwIfAborted();
    throw new GuestConnectError(`the copy ${o.id} could not be made a machine of its own`, {
      vmId: o.id,
      cause,
      hint: o.hint,
    });
  }
}
