/** Giving a VM's disk more room on the host, whether the VM runs or not. */
import { resolvePaths } from '../config/paths.ts';
import { formatBytes } from '../config/units.ts';
import { ConfigError } from '../errors.ts';
import type { StateOptions, WaitOptions } from './api.ts';
import { raiseBound } from './disk-bound.ts';
import { downOrAlive } from './down-or-alive.ts';
import { boundsOf } from './machine-config.ts';
import { writeRecord, type VmRecord } from './record.ts';
import { quotaBytesOf } from './vm-config.ts';
import type { VmInside } from './vm-inside.ts';
import { Vm } from './vm.ts';

/**
 * Raises the disk quota of a VM. One that is paused since it has reached it goes on with `resume`.
 * @param vm in hand, or its id, name or a prefix of its id
 * @param diskQuotaMib as `VmCreateOptions.diskQuotaMib`; more than it has
 * @throws ConfigError it has none, or no smaller one; NotFoundError, StateError, StateDirError, QmpError,
 *   TimeoutError
 */
export async function raiseDiskQuota(
  vm: Vm | string,
  diskQuotaMib: number,
  o: StateOptions & WaitOptions = {},
): Promise<void> {
  const quotaBytes = quotaBytesOf({ diskQuotaMib }) ?? 0;
  if (typeof vm !== 'string') return raise(vm.inside, quotaBytes, o);
  const { paths = resolvePaths(), signal } = o;
  await using taken = await Vm.connect(vm, { paths, signal });
  await raise(taken.inside, quotaBytes, o);
}

async function raise(vm: VmInside, quotaBytes: number, o: WaitOptions): Promise<void> {
  const raised = ({ config }: VmRecord) => ({ ...config, diskQuotaBytes: quotaBytes });
  await downOrAlive(vm, o, {
    check: (record) => requireLess(record, quotaBytes),
    // The file is made longer at the next start.
    down: (record) => writeRecord(vm.files, { ...record, config: raised(record) }),
    alive: async (live) => {
      const { id, files, record } = vm;
      requireLess(record, quotaBytes); // another may have raised it since
      const config = raised(record);
      const disk = { ...boundsOf(id, files, config), quotaBytes };
      await live.qmp.use((client) => raiseBound(client, disk, o), o);
      live.watch.raisedQuota(quotaBytes);
      await vm.write({ state: record.state, detail: record.detail, config });
    },
  });
}

/** @throws ConfigError */
function requireLess({ id, config }: VmRecord, quotaBytes: number): void {
  const { diskQuotaBytes: now } = config;
  if (now !== undefined && now < quotaBytes) return;
  const [wanted, has] = [formatBytes(quotaBytes), now === undefined ? 'none' : formatBytes(now)];
  throw new ConfigError(`the disk quota of VM ${id} cannot be raised to ${wanted}: it has ${has}`, {
    vmId: id,
    field: 'vm.diskQuotaMib',
    value: quotaBytes / 2 ** 20,
    hint:
      now === undefined
        ? 'Nothing bounds its disk. Only a new VM can have a quota: `qmp-agent create --disk-quota`.'
        : 'A quota can be raised, not lowered: what is on the disk is there. Give a larger one.',
  });
}
