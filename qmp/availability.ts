import { AVAILABILITY } from './generated/availability.ts';
import type { QemuVersion } from './messages.ts';

/**
 * In which of the QEMU versions that the types know a command, event or argument exists:
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
  args: object | undefined,
  errorClass: string,
  version: QemuVersion,
  table: Readonly<Record<string, Availability>> = AVAILABILITY,
): string {
  const connected = `${version.major}.${version.minor}.${version.micro}`;
  if (errorClass === 'CommandNotFound') {
    const known = table[command];
    return known
      ? `This is QEMU ${connected}. ${command} is known ${describe(known)}: use such a QEMU.`
      : `QEMU ${connected} lacks this command, or cannot run it in its present state: check the spelling (query-commands).`;
  }
  for (const name of Object.keys(args ?? {})) {
    const known = table[`${command}.${name}`];
    if (known && !within(known, version)) {
      return `This is QEMU ${connected}. The argument ${name} is known ${describe(known)}: leave it out.`;
    }
  }
  return `Correct what QEMU names; query-qmp-schema lists the arguments of ${command}.`;
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
