/** Warnings about the host that hold for all VMs of a process. */
import { events, type EventOf } from './events.ts';

const given = new Set<string>();

/**
 * Announces something about the host once a process.
 * @param key what it is about: another warning with the same is not given
 */
export function warnOnce(
  key: string,
  { code, message, hint }: Pick<EventOf<'host.warning'>, 'code' | 'message' | 'hint'>,
): void {
  if (given.has(key)) return;
  given.add(key);
  events.emit('host.warning', { code, message, hint });
}
