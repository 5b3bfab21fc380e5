/**
 * A process of its own that does one operation after the other, each as it is told on stdin, and stands
 * still at the begin of one step, event loop and all, until a byte comes on descriptor 3: so that whatever
 * is to die there dies exactly there. Tells on stdout what it passes and how it ended.
 */
import { subscribe } from 'node:diagnostics_channel';
import { readSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { QmpAgentError } from '../../../../src/errors.ts';
import { VmPool } from '../../../../src/pool/index.ts';
import { putBackInPlace } from '../../../../src/pool/sources.ts';
import { STEP_CHANNEL, type StepMessage } from '../../../../src/steps.ts';
import { Vm } from '../../../../src/vm/vm.ts';
import type { Job, Told } from './job.ts';

const GO_FD = 3;

function tell(message: Told): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

let at: Job['at'];
subscribe(STEP_CHANNEL, (message) => {
  const { operation, step, vmId } = message as StepMessage;
  const isHere = at !== undefined && at.operation === operation && at.step === step;
  tell({ kind: isHere ? 'at' : 'step', operation, step, vmId });
  if (!isHere) return;
  at = undefined; // the first time only
  readSync(GO_FD, Buffer.alloc(1));
});

const say = async (vm: Vm, command: string): Promise<string> =>
  (await vm.commands.run(command)).stdout.trim();

/** What shows whether a copy is a machine of its own, and of what it is a copy. */
const WHO = 'hostname; cat /var/tmp/word; head -c 16 /dev/urandom | od -An -tx1';

/** Looks at copies, and ends them. */
async function expectOwn(vms: readonly Vm[], word: string): Promise<void> {
  try {
    for (const vm of vms) await look(vm, word);
  } finally {
    for (const vm of vms) await end(vm);
  }
}

async function look(vm: Vm, word: string): Promise<void> {
  const [hostname, read] = (await say(vm, WHO)).split('\n');
  if (hostname !== vm.id || read !== word)
    throw new Error(`the copy ${vm.id} is ${hostname}, and reads ${read}`);
}

async function end(vm: Vm): Promise<void> {
  if ((await vm.info()).persistent) await vm.remove({ force: true });
  await vm.close();
}

/** A user of a pool leaves a secret; the next one must not find it. Done twice, as a refill may be first. */
async function usePool(job: Job, inPlace: boolean): Promise<void> {
  const { paths, template, timeoutMs } = job;
  const clones = {
    strategy: 'clone',
    bytesPerVm: 2 ** 28,
    create: async (signal: AbortSignal) => {
      const vm = await Vm.fromTemplate(template, { paths, timeoutMs, signal });
      await vm.commands.run(['true'], { signal });
      return vm;
    },
  };
  const source = inPlace ? putBackInPlace('walk', clones) : clones;
  const sizes = { minSize: 1, maxSize: 1, timeoutMs };
  await using pool = await VmPool.over(source, sizes);
  const first = await pool.acquire({ timeoutMs });
  await say(first.vm, 'echo secret > ~/secret; echo secret > /dev/shm/secret');
  ({ at } = job); // what the making of the first VM passes is none of a release
  await first.release();
  const second = await pool.acquire({ timeoutMs });
  const found = await say(second.vm, 'cat ~/secret /dev/shm/secret 2>/dev/null || true');
  if (found !== '') throw new Error(`the next user of ${second.vm.id} finds ${found}`);
}

async function work(job: Job): Promise<void> {
  const { paths, template, timeoutMs, vmId, name, persistent = false, what, word } = job;
  if (what === 'pool.reset' || what === 'pool.release') return usePool(job, what === 'pool.reset');
  ({ at } = job);
  if (what === 'clone') {
    const vm = await Vm.fromTemplate(template, { paths, timeoutMs, persistent });
    return expectOwn([vm], word);
  }
  await using vm = await Vm.connect(vmId, { paths });
  if (what === 'fork') {
    const children = await vm.fork({ timeoutMs, persistent });
    await expectOwn(children, word);
  } else if (what === 'snapshot.create') await vm.snapshots.create(name, { timeoutMs });
  else if (what === 'snapshot.restore') await vm.snapshots.restore(name, { timeoutMs });
  else if (what === 'suspend') await vm.suspend({ timeoutMs });
  else await vm.resume({ timeoutMs });
}

tell({ kind: 'ready' });
for await (const line of createInterface({ input: process.stdin })) {
  const startedAt = performance.now();
  const ms = () => Math.round(performance.now() - startedAt);
  try {
    await work(JSON.parse(line) as Job);
    tell({ kind: 'done', ms: ms() });
  } catch (error) {
    const code = error instanceof QmpAgentError ? error.code : undefined;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    tell({ kind: 'failed', ms: ms(), code, text });
  }
  at = undefined;
}
