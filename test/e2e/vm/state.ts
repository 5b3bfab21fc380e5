/** The state directory of one test file: VMs are made in it, and nothing may be left in it. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { events, type SystemEvent } from '../../../src/events.ts';
import type { StatePaths, VmCreateOptions, VmInfo } from '../../../src/vm/api.ts';
import { Vm } from '../../../src/vm/vm.ts';
import type { Sandbox } from '../../integration/cli/command.ts';
import { expectNothingLeft, vmSandbox } from '../cli/host.ts';
import { SCALE } from '../../scale.ts';

/** A boot on a busy machine. */
export const BOOT_MS = 100_000 * SCALE;
/** Events that are kept for a test that fails; with every transcript, a boot makes some 200. */
const MAX_EVENTS = 2_000;

/** One state directory. */
export interface TestState {
  readonly box: Sandbox;
  readonly paths: StatePaths;
  /** Makes a VM that is removed at the end of the file, where it is still there. */
  create(o?: VmCreateOptions): Promise<Vm>;
}

/**
 * Makes the state directory of a test file and takes it away at its end, with the VMs in it; whatever
 * is left then is a failure. Of a test that fails, console, argv and transcripts of its VMs are kept
 * in `test-results/vms`.
 */
export function useTestState(): TestState {
  let box: Sandbox | undefined;
  const made = new Set<Vm>();
  const recent: SystemEvent[] = [];
  const theBox = (): Sandbox => {
    if (box === undefined) throw new Error('the state directory is made by beforeAll');
    return box;
  };
  const state: TestState = {
    get box() {
      return theBox();
    },
    get paths() {
      return statePaths(theBox());
    },
    create: async (o = {}) => {
      const vm = await Vm.create({ paths: state.paths, timeoutMs: BOOT_MS, ...o });
      made.add(vm);
      return vm;
    },
  };
  beforeAll(async () => {
    box = await vmSandbox();
    events.enableTraces(['qmp', 'argv']);
    events.subscribe((event) => {
      recent.push(event);
      if (recent.length > MAX_EVENTS) recent.shift();
    });
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await keepEvidence(task.name, state.paths, recent);
  });
  afterAll(async () => {
    for (const vm of made) await vm.close();
    for (const { id } of await Vm.list(state)) {
      const vm = await Vm.connect(id, state);
      await vm.remove({ force: true });
      await vm.close();
    }
    await expectNothingLeft(theBox());
    await theBox()[Symbol.asyncDispose]();
  });
  return state;
}

/** Where a sandbox keeps its state. */
export function statePaths(box: Sandbox): StatePaths {
  return {
    dataDir: join(box.dir, 'data'),
    runtimeDir: join(box.dir, 'run'),
    cacheDir: box.env['QMP_AGENT_STATE_CACHE_DIR'] ?? join(box.dir, 'cache'),
  };
}

/** pid of a VM's QEMU. */
export async function qemuPid(vm: { info(): Promise<VmInfo> }): Promise<number> {
  const { pid } = await vm.info();
  if (pid === undefined) throw new Error('the VM does not run');
  return pid;
}

/** pid of the QEMU of the only VM there is: for tests that kill it, and nothing else. */
export async function onlyQemuPid(state: TestState): Promise<number> {
  const vms = await Vm.list(state);
  const pid = vms[0]?.pid;
  if (vms.length !== 1 || pid === undefined) throw new Error(`not one VM: ${JSON.stringify(vms)}`);
  return pid;
}

/** What a promise rejects with; fails where it resolves. */
export async function failureOf(promise: Promise<unknown>): Promise<Error> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error(`expected an error, got ${JSON.stringify(value)}`);
}

async function keepEvidence(
  test: string,
  paths: StatePaths,
  recent: readonly SystemEvent[],
): Promise<void> {
  const dir = join('test-results/vms', test.replaceAll(/\W+/g, '-').slice(0, 80));
  await mkdir(dir, { recursive: true });
  await writeFile(
    join(dir, 'events.jsonl'),
    recent.map((event) => `${JSON.stringify(event)}\n`).join(''),
  );
  for (const info of await Vm.list({ paths }).catch(() => [])) {
    await using vm = await Vm.connect(info.id, { paths });
    await writeFile(join(dir, `${info.id}.json`), JSON.stringify(info, undefined, 2));
    await writeFile(join(dir, `${info.id}.console.log`), await vm.logs());
    await writeFile(join(dir, `${info.id}.qemu.log`), await vm.logs({ kind: 'qemu' }));
  }
}
