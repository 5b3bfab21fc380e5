/** Making a copy of a guest a machine of its own: what the host gives for it. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { RenewSpec } from '../../../guest-agent/protocol.ts';
import { GuestConnectError, GuestDisconnectedError, GuestRequestError } from '../../errors.ts';
import { awaitReady, type ReadyOptions } from '../boot.ts';
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

/**
 * Waits until the agent of a copy answers, which it does when the copy has become a machine of its own.
 * @throws GuestConnectError it must not be used: it still is what it was copied from; what `awaitReady` throws
 */
export async function becomeOwn(
  live: LiveVm,
  ready: ReadyOptions,
  o: {
    hostname: string;
    /** It stays, and may be started anew from its disk. */
    persistent: boolean;
    /** What to do where it fails. */
    hint: string;
  },
): Promise<void> {
  try {
    await awaitReady(live, { ...ready, renew: () => ownIdentityOf(o.hostname, o.persistent) });
  } catch (cause) {
    ready.signal?.throwIfAborted();
    live.watch.fault.throwIfAborted();
    const isRefused = cause instanceof GuestRequestError || cause instanceof GuestDisconnectedError;
    if (!isRefused) throw cause;
    const { id } = ready;
    throw new GuestConnectError(`the copy ${id} could not be made a machine of its own`, {
      ...{ vmId: id, cause, hint: o.hint },
    });
  }
}
