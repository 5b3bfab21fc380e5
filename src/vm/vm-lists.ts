/** What there is, told without a VM in hand. */
import { resolvePaths } from '../config/paths.ts';
import type { Reaped, StateOptions, VmInfo, WaitOptions } from './api.ts';
import { findRecord } from './find-vm.ts';
import { collectGarbage, reapAbandoned } from './gc.ts';
import { checkLayout } from './state-dir.ts';
import { entryInfo, inspectVm } from './vm-info.ts';

/** See `VmStatics.list`. */
export async function listVms(o: StateOptions): Promise<VmInfo[]> {
  const paths = o.paths ?? resolvePaths();
  await checkLayout(paths);
  const { entries } = await reapAbandoned(paths);
  return entries.map((entry) => entryInfo(paths, entry));
}

/** See `VmStatics.inspect`. */
export async function inspectNamed(idOrName: string, o: StateOptions): Promise<VmInfo> {
  const paths = o.paths ?? resolvePaths();
  return inspectVm(paths, await findRecord(idOrName, paths));
}

/** See `VmStatics.gc`. */
export async function collectIn(o: StateOptions & WaitOptions): Promise<Reaped[]> {
  const paths = o.paths ?? resolvePaths();
  await checkLayout(paths);
  return collectGarbage(paths, o);
}
