/** A tap for a VM whose process may not make one: borrowed from those that root has made for its user. */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { VmNetwork } from '../../../nft/index.ts';
import { HostError, NetworkSetupError, TimeoutError } from '../../errors.ts';
import { openError } from '../../host-files.ts';
import { makePolicy, type VmPolicy } from '../policy.ts';
import { appendToLog, rotatedLogPath } from '../traffic/log-file.ts';
import { askLine } from '../ask-line.ts';
import { hasTapFor } from './lent-taps.ts';
import {
  isForUse,
  lenderSocket,
  MAX_REPLY_CHARS,
  parseReply,
  type Loan,
  type LoanReply,
  type LoanRequest,
} from './loan.ts';

/** Rules, and a turn among others. */
const TIMEOUT_MS = 60_000;
/** A lender that has died is there again in one to three seconds; on an emulated machine in many times that. */
const RESTART_MS = 60_000;
/** For it to answer that a tap is given back: at once, but that others may be before. */
const GIVE_MS = 30_000;
/** A QEMU that has been killed has its tap open for some ms yet. */
const CLOSE_MS = 5_000;
const POLL_MS = 100;
const TUN_DEVICE = '/dev/net/tun';
const MORE_RIGHTS = 'Run as root, or with CAP_NET_ADMIN';

interface CallOptions {
  readonly vmId: string;
  readonly signal?: AbortSignal | undefined;
  /** Default {@link TIMEOUT_MS}. */
  readonly timeoutMs?: number | undefined;
}

/** Whether root has made taps for this process's user. */
export async function hasLentTaps(): Promise<boolean> {
  return hasTapFor(process.getuid?.() ?? 0);
}

/**
 * Borrows one. It has its rules, it is up, and names are answered there; QEMU has to open it within two minutes.
 * @throws HostError root has made none, or /dev/net/tun does not open
 * @throws NetworkSetupError none is free, or the VM is to have what only root can give it: another policy than the
 *   default, published ports, IPv6; TimeoutError; the signal's reason
 */
export async function borrowTap(o: {
  vmId: string;
  policy: VmPolicy;
  publishes: boolean;
  ipv6?: boolean | undefined;
  signal?: AbortSignal | undefined;
}): Promise<{ loan: Loan; network: VmNetwork }> {
  const { vmId } = o;
  if (!(await hasLentTaps())) {
    throw new HostError('ERR_HOST_PERMISSION', 'this process may not make taps', {
      hint: `${MORE_RIGHTS}; or have root make taps for this user (qmp-agent setup network --taps N --user NAME); or take --network isolated, or --network user.`,
      vmId,
    });
  }
  checkIsDefault(o);
  const tunError = await openError(TUN_DEVICE);
  if (tunError !== undefined) {
    throw new HostError('ERR_HOST_PERMISSION', `${TUN_DEVICE} cannot be opened (${tunError})`, {
      hint: `Have root let every user open it, as udev does by itself: chmod 666 ${TUN_DEVICE}.`,
      vmId,
    });
  }
  return taken(await ask({ do: 'take' }, o), vmId);
}

/** Cuts all connections of the VM that has it. @returns what its network is now @throws as {@link borrowTap} */
export async function renewLoan({ id }: Loan, o: CallOptions): Promise<VmNetwork> {
  return taken(await ask({ do: 'renew', id }, o), o.vmId).network;
}

/**
 * What was recorded is kept in the VM's own log. No error: a tap that nobody has open is taken back anyway, and a log that
 * nobody has copied goes by itself in time.
 */
export async function giveBack(
  { id, logPath }: Loan,
  vmId: string,
  ownLogPath: string,
): Promise<void> {
  const isWhole = await give(id, vmId);
  try {
    let isAny = false;
    for (const path of [rotatedLogPath(logPath), logPath]) {
      const text = await readFile(path, 'utf8').catch(() => '');
      if (text === '') continue;
      await appendToLog(ownLogPath, text);
      isAny = true;
    }
    // To one that is not whole more may come: it is kept for some days.
    if (isAny && isWhole) await say('forget', id, vmId);
  } catch {
    // It could not be written down. The VM goes all the same.
  }
}

/** @returns whether all that is to be is in its log */
async function give(id: string, vmId: string): Promise<boolean> {
  const giveUpAt = performance.now() + CLOSE_MS;
  for (;;) {
    const reply = (await say('give', id, vmId)) ?? {};
    if (!('open' in reply)) return 'given' in reply;
    if (performance.now() >= giveUpAt) return false;
    await delay(POLL_MS);
  }
}

/** @returns undefined: there was no answer */
async function say(
  what: 'give' | 'forget',
  id: string,
  vmId: string,
): Promise<LoanReply | undefined> {
  return ask({ do: what, id }, { vmId, timeoutMs: GIVE_MS }).catch(() => undefined);
}

/** @throws NetworkSetupError a loan's policy cannot be changed */
export function refuseChange(vmId: string): never {
  throw new NetworkSetupError(`VM ${vmId} has a borrowed tap, whose policy is the default one`, {
    hint: `${MORE_RIGHTS}, to give a VM another policy.`,
    vmId,
  });
}

function checkIsDefault(o: {
  vmId: string;
  policy: VmPolicy;
  publishes: boolean;
  ipv6?: boolean | undefined;
}): void {
  const { vmId, policy, publishes, ipv6 } = o;
  const own = [
    ...(publishes ? ['published ports'] : []),
    ...(ipv6 === true ? ['IPv6'] : []),
    ...(isDeepStrictEqual(policy, makePolicy({})) ? [] : ['a policy of its own']),
  ];
  const [what] = own;
  if (what === undefined) return;
  throw new NetworkSetupError(
    `the VM cannot have ${what}: this process may not make taps, and one that root has made for it has the default policy and IPv4`,
    { hint: `${MORE_RIGHTS}; or leave policy, ports and IPv6 out.`, vmId },
  );
}

function taken(reply: LoanReply, vmId: string): { loan: Loan; network: VmNetwork } {
  if ('loan' in reply) return reply;
  const { refused, hint } =
    'refused' in reply ? reply : { refused: 'no tap came', hint: 'Try again.' };
  throw new NetworkSetupError(`no tap can be borrowed: ${refused}`, { hint, vmId });
}

/**
 * Asks until there is a reply: nothing is lost with a lender that dies over it, as a loan that nobody has heard of is
 * taken back, and one that is renewed twice is renewed. `give` and `forget` are said once.
 */
async function ask(request: LoanRequest, o: CallOptions): Promise<LoanReply> {
  let giveUpAt: number | undefined;
  for (;;) {
    const reply = await askOnce(request, o);
    if (reply !== undefined) return reply;
    giveUpAt ??= performance.now() + (isForUse(request) ? RESTART_MS : 0);
    if (performance.now() >= giveUpAt) {
      throw new NetworkSetupError('root’s network service does not lend taps', {
        hint: 'Have root run once more: qmp-agent setup network --taps N --user NAME.',
        vmId: o.vmId,
      });
    }
    await delay(POLL_MS, undefined, o.signal === undefined ? {} : { signal: o.signal });
  }
}

/** @returns undefined: nobody is there, or he is there no more */
async function askOnce(
  request: LoanRequest,
  { vmId, signal, timeoutMs = TIMEOUT_MS }: CallOptions,
): Promise<LoanReply | undefined> {
  signal?.throwIfAborted();
  const bounds = { timeoutMs, signal, maxChars: MAX_REPLY_CHARS };
  const socket = lenderSocket(process.getuid?.() ?? 0);
  const { text, isLate } = await askLine(socket, JSON.stringify(request), bounds);
  signal?.throwIfAborted();
  if (isLate) throw new TimeoutError('the loan of a tap', timeoutMs, { vmId });
  return parseReply(text);
}
