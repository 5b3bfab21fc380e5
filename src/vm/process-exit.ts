/**
 * What an ephemeral VM leaves when its owner calls `process.exit()` without closing it. The kernel
 * kills QEMU then; this takes away the files. After a SIGKILL gc does it.
 */
import { rmSync } from 'node:fs';
import type { QemuProcess } from './launcher.ts';

const atExit = new Set<() => void>();
let listening = false;

/**
 * Has a process killed and directories removed when this process exits.
 * @returns a function that calls it off
 */
export function dieWithProcess(
  process_: QemuProcess | undefined,
  dirs: readonly string[],
): () => void {
  if (!listening) {
    listening = true;
    process.once('exit', () => {
      for (const action of atExit) action();
    });
  }
  const action = () => {
    process_?.kill('SIGKILL');
    for (const dir of dirs) {
      try {
        rmSync(dir, { recursive: true, force: true });
      } catch {
        // gc will
      }
    }
  };
  atExit.add(action);
  return () => {
    atExit.delete(action);
  };
}
