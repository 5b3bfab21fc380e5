/** Whether QEMU, or this program, has changed since a VM was started. */
import type { QmpClient } from '../../qmp/index.ts';
import type { WaitOptions } from './api.ts';
import { TCG_CPU } from './argv.ts';
import { findQemu, readArgv } from './launcher.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmInside } from './vm-inside.ts';

/**
 * What the VM runs on, and what it would be started on now; undefined where that is the same. The state
 * of its devices means nothing to another.
 */
export async function upgradedSince(
  vm: VmInside,
  live: LiveVm,
  client: QmpClient,
  o: WaitOptions,
): Promise<{ was: string; is: string } | undefined> {
  const [{ qemu }, { version }, argv = []] = await Promise.all([
    client.execute('query-version', {}, o),
    findQemu(vm.config.qemuPath),
    readArgv(live.process.identity.pid),
  ]);
  const running = `${qemu.major}.${qemu.minor}.${qemu.micro}`;
  if (version !== running) return { was: `QEMU ${running}`, is: `QEMU ${version}` };
  const cpu = argv[argv.indexOf('-cpu') + 1] ?? '';
  const isOther = live.run.accel === 'tcg' && cpu !== TCG_CPU;
  return isOther ? { was: `the processor ${cpu}`, is: TCG_CPU } : undefined;
}
