/** The VM that a user means, or why there is none to be had. */
import { NotFoundError, StateDirError, StateError } from '../errors.ts';
import type { StatePaths, VmState } from './api.ts';
import { reapAbandoned } from './gc.ts';
import { resolveVm } from './ids.ts';
import type { VmRecord } from './record.ts';
import { checkLayout } from './state-dir.ts';
import { vmPaths } from './vm-paths.ts';

/**
 * The record of a VM, by id, name or prefix.
 * @throws NotFoundError none, or several
 * @throws StateDirError the record is broken or of a later version
 */
export async function findRecord(idOrName: string, paths: StatePaths): Promise<VmRecord> {
  await checkLayout(paths);
  const { entries } = await reapAbandoned(paths);
  const found = resolveVm(
    idOrName,
    entries.map((entry) => ({ id: entry.id, name: entry.record?.name, entry })),
  ).entry;
  if (found.record !== undefined) return found.record;
  throw new StateDirError(found.defect, {
    path: vmPaths(paths, found.id).recordPath,
    vmId: found.id,
    hint: found.fromLaterVersion
      ? 'Upgrade qmp-agent to the version that made this VM.'
      : 'Remove what is left of it with `qmp-agent gc`.',
  });
}

/** What to do about a VM that is in this state, where another is needed. */
const STATE_HINTS: Partial<Record<VmState, (id: string, required: readonly VmState[]) => string>> =
  {
    stopped: (id) => `Start it: \`qmp-agent start ${id}\`.`,
    suspended: (id, required) =>
      required.includes('stopped')
        ? `Resume it: \`qmp-agent resume ${id}\`. To boot it from its disk and lose what is in its memory: \`qmp-agent start --discard ${id}\`.`
        : `Resume it: \`qmp-agent resume ${id}\`. To lose what is in its memory: \`qmp-agent kill --discard ${id}\`.`,
    paused: (id) => `Resume it: \`qmp-agent resume ${id}\`.`,
    running: (id, required) =>
      required.includes('stopped')
        ? `Stop it first: \`qmp-agent stop ${id}\`.`
        : 'It runs: there is nothing to resume.',
  };

/** A VM is in another state than an operation needs. */
export function wrongState(id: string, required: readonly VmState[], actual: VmState): StateError {
  return new StateError(`VM ${id} is ${actual}, not ${required.join(' or ')}`, {
    vmId: id,
    actual,
    required,
    hint: STATE_HINTS[actual]?.(id, required) ?? 'See `qmp-agent list`.',
  });
}

/** The caller has closed what he uses. */
export function closedVm(id: string): StateError {
  return new StateError(`this handle of VM ${id} is closed`, {
    vmId: id,
    actual: 'closed',
    required: ['open'],
    hint: 'Take the VM up again: `Vm.connect(id)`.',
  });
}

/** Somebody removed the VM. */
export function goneVm(id: string): NotFoundError {
  return new NotFoundError(`VM ${id} has been removed`, {
    kind: 'vm',
    query: id,
    vmId: id,
    hint: 'See what there is with `qmp-agent list`.',
  });
}
