import { QmpProtocolError } from '../src/errors.ts';
import { AVAILABILITY, KNOWN_VERSIONS } from './generated/availability.ts';
import type { QemuVersion } from './messages.ts';

/**
 * In which of the QEMU versions that the types know a command, event, argument or value exists:
 * `from`: not in versions before it that we know; `until`: not in versions after it.
 */
export interface Availability {
  readonly from?: string;
  readonly until?: string;
}

/**
 * Explains a refusal by what the QEMU versions differ in. It is looked up only when QEMU has
 * refused: distributions build QEMU with different features, so its own word counts, and a command
 * that works costs nothing.
 */
export function availabilityHint(
  command: string,
  { errorClass, desc }: { errorClass: string; desc: string },
  version: QemuVersion,
): string {
  const connected = `This is QEMU ${text(version)}.`;
  if (errorClass === 'CommandNotFound') {
    const known = AVAILABILITY[command];
    return known
      ? `${connected} ${command} is known ${describe(known)}: use such a QEMU.`
      : `${connected} It lacks this command, or cannot run it in its present state: check the spelling (query-commands).`;
  }
  // "Parameter 'rom' is unexpected", "Parameter 'capability' does not accept value 'mapped-ram'".
  for (const [, name] of desc.matchAll(/'([^']+)'/g)) {
    const known = AVAILABILITY[`${command}.${name}`];
    if (known && !within(known, version)) {
      return `${connected} '${name}' is known ${describe(known)}: leave it out.`;
    }
  }
  return `Correct what QEMU names; query-qmp-schema lists the arguments of ${command}.`;
}

/**
 * Nobody refuses a wait for an event that this QEMU never sends; so it is refused here, where it is
 * certain. Of versions between those we know it is not.
 *
 * @throws QmpProtocolError where the version has none of the events.
 */
export function assertSomeKnown(events: readonly string[], version: QemuVersion): void {
  if (!events.every((name) => surelyLacks(name, version))) return;
  const known = events.map((name) => `${name} is known ${describe(AVAILABILITY[name] ?? {})}`);
  throw new QmpProtocolError(`QEMU ${text(version)} never sends ${events.join(' or ')}`, {
    hint: `${known.join('; ')}. Wait for an event that this QEMU has.`,
  });
}

function surelyLacks(name: string, version: QemuVersion): boolean {
  const { from, until } = AVAILABILITY[name] ?? {};
  const before = KNOWN_VERSIONS[KNOWN_VERSIONS.indexOf(from ?? '') - 1];
  const after = until && KNOWN_VERSIONS[KNOWN_VERSIONS.indexOf(until) + 1];
  return (
    (before !== undefined && compare(version, before) <= 0) ||
    (after !== undefined && compare(version, after) >= 0)
  );
}

function describe({ from, until }: Availability): string {
  return from !== undefined
    ? `in QEMU ${from}, not in older ones we know`
    : `up to QEMU ${until}, not in newer ones we know`;
}

function within({ from, until }: Availability, version: QemuVersion): boolean {
  return (
    (from === undefined || compare(version, from) >= 0) &&
    (until === undefined || compare(version, until) <= 0)
  );
}

function compare(version: QemuVersion, other: string): number {
  const [major = 0, minor = 0] = other.split('.').map(Number);
  return version.major - major || version.minor - minor;
}

function text({ major, minor, micro }: QemuVersion): string {
  return `${major}.${minor}.${micro}`;
}
