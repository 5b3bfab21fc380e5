/** Looks after the VMs that nobody uses. */
import type { Member } from './roster.ts';

/** For an idle agent to answer a ping: seconds are an eternity, on an overcommitted host too. */
const PING_TIMEOUT_MS = 10_000;

/**
 * Pings idle VMs, one after the other, so that it costs next to nothing. One that is lent meanwhile is
 * its user's: whatever came of the ping says nothing about it.
 * @param onSick told of each that does not answer
 */
export async function checkHealth(
  idle: readonly Member[],
  onSick: (member: Member, error: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const member of idle) {
    const { uses } = member;
    const isStillIdle = () => member.state === 'idle' && member.uses === uses && !signal.aborted;
    if (!isStillIdle()) continue;
    try {
      const bounds = { timeoutMs: PING_TIMEOUT_MS, signal };
      const session = await member.vm.guest(bounds);
      await session.ping(bounds);
    } catch (error) {
      if (isStillIdle()) onSick(member, error);
    }
  }
}
