/** Ids and names of VMs, and how a user may refer to one. Pure but for the randomness. */
import { randomBytes, randomInt } from 'node:crypto';
import { ConfigError, NotFoundError } from '../errors.ts';

/** Hex digits of an id: short, as socket paths are. */
const ID_DIGITS = 12;
const ID_PATTERN = /^[0-9a-f]{12}$/;
/** Hex digits after `saved-`: apart from the few others of one VM. */
const SAVED_DIGITS = 8;
const SAVED_PATTERN = /^saved-[0-9a-f]{8}$/;
/** Starts with a letter, so that no name looks like an option; fits a hostname label after `_` is replaced. */
const NAME_PATTERN = /^[A-Za-z][A-Za-z0-9._-]{0,62}$/;
/** AF_VSOCK context ids 0–2 are reserved, 2^32−1 means any (linux/vm_sockets.h). */
const MIN_CID = 3;
const MAX_RANDOM_CID = 0x7fff_ffff;

/** A new id: 48 random bits. */
export function newVmId(): string {
  return randomBytes(ID_DIGITS / 2).toString('hex');
}

/** Whether this is an id as {@link newVmId} makes it. */
export function isVmId(text: string): boolean {
  return ID_PATTERN.test(text);
}

/** A new name for a directory with a suspended VM's memory. */
export function newSavedName(): string {
  return `saved-${randomBytes(SAVED_DIGITS / 2).toString('hex')}`;
}

/** Whether this is a name as {@link newSavedName} makes it. */
export function isSavedName(name: unknown): name is string {
  return typeof name === 'string' && SAVED_PATTERN.test(name);
}

/** A random AF_VSOCK context id; the kernel refuses one that is taken, and the launcher tries another. */
export function newCid(): number {
  return randomInt(MIN_CID + 1_000, MAX_RANDOM_CID);
}

/** Whether a VM, or a template, can have this name. */
export function isVmName(name: string): boolean {
  return NAME_PATTERN.test(name) && !isVmId(name);
}

/** @throws ConfigError for a name that a VM cannot have */
export function checkVmName(name: string): void {
  if (isVmName(name)) return;
  throw new ConfigError(`${JSON.stringify(name)} is not a VM name`, {
    field: 'vm.name',
    value: name,
    hint: 'Start with a letter and use at most 63 letters, digits, ".", "_" and "-"; a name must not look like an id.',
  });
}

/** What {@link resolveVm} looks at. */
export interface Named {
  readonly id: string;
  readonly name?: string | undefined;
}

/**
 * The VM that a user means: by id, by name, or by a prefix of an id that fits only one.
 * @throws NotFoundError none fits, or several do
 */
export function resolveVm<T extends Named>(query: string, vms: readonly T[]): T {
  const exact = vms.find((vm) => vm.id === query) ?? vms.find((vm) => vm.name === query);
  if (exact !== undefined) return exact;
  const matches = query === '' ? [] : vms.filter((vm) => vm.id.startsWith(query));
  const [match] = matches;
  if (match !== undefined && matches.length === 1) return match;
  if (matches.length > 1) {
    throw new NotFoundError(`${JSON.stringify(query)} fits ${matches.length} VMs`, {
      kind: 'vm',
      query,
      candidates: matches.map((vm) => vm.id),
      hint: `Give more digits: ${matches.map((vm) => vm.id).join(', ')}.`,
    });
  }
  throw new NotFoundError(`there is no VM ${JSON.stringify(query)}`, {
    kind: 'vm',
    query,
    hint: 'See what there is with `qmp-agent list`.',
  });
}
