/** The logs of a VM, by kind. */
import type { LogKind } from './api.ts';
import { BoundedLog } from './bounded-log.ts';
import type { VmPaths } from './vm-paths.ts';

/** All of them. */
export function logsOf(files: VmPaths): { consoleLog: BoundedLog; qemuLog: BoundedLog } {
  return {
    consoleLog: new BoundedLog(files.consoleLogPath),
    qemuLog: new BoundedLog(files.qemuLogPath),
  };
}

/** One of them. */
export function logOf(files: VmPaths, kind: LogKind = 'console'): BoundedLog {
  const { consoleLog, qemuLog } = logsOf(files);
  return kind === 'console' ? consoleLog : qemuLog;
}

/** Empties all of them. */
export async function clearLogs(files: VmPaths): Promise<void> {
  const { consoleLog, qemuLog } = logsOf(files);
  await Promise.all([consoleLog.clear(), qemuLog.clear()]);
}
