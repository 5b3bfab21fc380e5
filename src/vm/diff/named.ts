/** Comparing checkpoints that are named. */
import { resolvePaths } from '../../config/paths.ts';
import type { StateOptions, WaitOptions } from '../api.ts';
import { Vm } from '../vm.ts';
import { diffNamed, holding } from './diff.ts';
import type { CheckpointDiff } from './types.ts';

/**
 * Files that are different at two checkpoints: images, templates, VMs, their snapshots (`VM@SNAPSHOT`),
 * points of forks; by name, id, unique prefix of an id, or `KIND:NAME`. The files are read by this process;
 * nothing that a guest wrote is mounted. A VM that runs flushes what it has written, and stands still
 * while it is looked at. Default of `timeoutMs`: 120 000.
 * @param other default: what `one` stands on is compared with `one`
 * @throws NotFoundError, ConfigError, DiffError, StateError, StateDirError, GuestError, TimeoutError
 */
export function diffCheckpoints(
  one: string,
  other?: string,
  o: StateOptions & WaitOptions = {},
): Promise<CheckpointDiff> {
  const { paths = resolvePaths(), signal, timeoutMs } = o;
  const hold = holding((id) => Vm.connect(id, { paths, signal }));
  return diffNamed(other === undefined ? [one] : [one, other], { paths, signal, timeoutMs, hold });
}
