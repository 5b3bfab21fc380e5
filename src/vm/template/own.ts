/** Making a copy of a guest a machine of its own: what the host gives for it. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { NetworkSpec, RenewSpec } from '../../../guest-agent/protocol.ts';
import { GuestConnectError, GuestDisconnectedError, GuestRequestError } from '../../errors.ts';
import { awaitReady, type ReadyOptions } from '../boot.ts';
import { freshEntropy } from '../entropy.ts';
import { guestNetworkOf } from '../network-of.ts';
import type { LiveVm } from '../live-vm.ts';
import type { VmConfig } from '../record.ts';

const MACHINE_ID_BYTES = 16;

/** What is known of it before. */
interface OwnIdentity {
  hostname: string;
  /** As {@link RenewSpec.durable}. */
  durable: boolean;
  network: NetworkSpec | undefined;
}

/** All that a machine must not share with its copies. */
export function ownIdentityOf({ hostname, durable, network }: OwnIdentity): RenewSpec {
  return {
    entropy: freshEntropy().toString('base64'),
    unixMs: Date.now(),
    hostname,
    machineId: randomBytes(MACHINE_ID_BYTES).toString('hex'),
    bootId: randomUUID(),
    durable,
    ...(network === undefined ? {} : { network }),
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
    config: VmConfig;
    /** What to do where it fails. */
    hint: string;
  },
): Promise<void> {
  try {
    // What stays may be started anew from its disk.
    const { hostname, persistent: durable } = o.config;
    const network = await guestNetworkOf({ id: ready.id, files: ready.paths, config: o.config });
    await awaitReady(live, {
      ...ready,
      renew: () => ownIdentityOf({ hostname, durable, network }),
    });
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
