/** The logs of a VM, by kind. */
import type { LogKind } from './api.ts';
import type { BoundedLog } from './bounded-log.ts';
import { logsOf } from './live-vm.ts';
import type { VmPaths } from './vm-paths.ts';

/** One of its logs. */
export function logOf(files: VmPaths, kind: LogKind = 'console'): BoundedLog {
  const { consoleLog, qemuLog } = logsOf(files);
  return kind === 'console' ? consoleLog : qemuLog;
}

/** Empties all of them. */
export async function clearLogs(files: VmPaths): Promise<void> {
  const { consoleLog, qemuLog } = logsOf(files);
  await Promise.all([consoleLog.clear(), qemuLog.clear()]);
}
