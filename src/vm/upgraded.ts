/** Whether QEMU, or this program, has changed since a VM was started. */
import type { QmpClient } from '../../qmp/index.ts';
import type { WaitOptions } from './api.ts';
import { TCG_CPU } from './argv.ts';
import { findQemu, readArgv } from './launcher.ts';
import type { LiveVm } from './live-vm.ts';
import type { VmInside } from './vm-inside.ts';

/**
 * Makes sure that the VM would be started on now what it runs on: the state of its devices means nothing
 * to another.
 * @param refuse the error, given what it runs on and what it would be started on
 */
export async function requireUnchanged(
  vm: VmInside,
  live: LiveVm,
  client: QmpClient,
  { refuse, ...o }: WaitOptions & { refuse: (was: string, is: string) => Error },
): Promise<void> {
  const [{ qemu }, { version }, argv = []] = await Promise.all([
    client.execute('query-version', {}, o),
    findQemu(vm.config.qemuPath),
    readArgv(live.process.identity.pid),
  ]);
  const running = `${qemu.major}.${qemu.minor}.${qemu.micro}`;
  if (version !== running) throw refuse(`QEMU ${running}`, `QEMU ${version}`);
  const cpu = argv[argv.indexOf('-cpu') + 1] ?? '';
  if (live.run.accel === 'tcg' && cpu !== TCG_CPU) throw refuse(`the processor ${cpu}`, TCG_CPU);
}
