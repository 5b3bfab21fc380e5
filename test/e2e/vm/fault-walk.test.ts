/**
 * Deaths at every step of save, restore, clone, fork, suspend, resume, and of what a pool does with a VM
 * that was used: of QEMU, of the process that does it, of the agent in the guest. Each time the call ends
 * in an error of ours, or as if nothing had been; what survives works; and after `gc` nothing is left.
 *
 * `QMP_AGENT_FAULT_WALK=all` tries more of them (`deathsOf`), and each time all of the operation again.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import { SCALE } from '../../scale.ts';
import type { Passed, Work } from './fault-walk/job.ts';
import { deathsOf, placesOf, type Death } from './fault-walk/plan.ts';
import { Runner, type End } from './fault-walk/process.ts';
import { Subjects, TEMPLATE } from './fault-walk/subjects.ts';
import { killAgent, killQemu } from './fault-walk/victims.ts';
import { BOOT_MS, useTestState } from './state.ts';

const ALL = process.env['QMP_AGENT_FAULT_WALK'] === 'all';
/** Bound of each operation: seconds where the guest's agent has to start again. */
const TIMEOUT_MS = 30_000 * SCALE;
/** From the bound to the end of the call: what was begun is undone. */
const UNDO_MS = 10_000 * SCALE;
/** Waits in the guest until somebody writes `die` to the console, and kills the agent; no exec's process. */
const KILLER = `
echo template > /var/tmp/word && chown agent /var/tmp/word
cat > /run/killer <<'END'
echo $$ > /sys/fs/cgroup/cgroup.procs
while read -r line; do
  case $line in *die*) kill -9 $(pgrep -x qmp-agent) && echo agent killed > /dev/console ;; esac
done
END
setsid sh /run/killer < /dev/ttyS0 > /dev/null 2>&1 &
`;

const state = useTestState();
let store: TemplateStore;
let before: Record<string, string>;
let subjects: Subjects;
let runner: Runner;
/** Starts while the other one works: Node takes a second. */
let spare: Runner;

/** What a template's directory holds; it must not change. */
async function contents(): Promise<Record<string, string>> {
  const dir = store.dirOf(TEMPLATE);
  const names = (await readdir(dir)).sort();
  const hash = async (name: string) =>
    createHash('sha256')
      .update(await readFile(`${dir}/${name}`))
      .digest('hex');
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await hash(name)] as const)),
  );
}

beforeAll(async () => {
  [runner, spare] = [new Runner(), new Runner()];
  store = new TemplateStore(state.paths);
  const { paths } = state;
  await createTemplate(TEMPLATE, {
    ...{ paths, timeoutMs: BOOT_MS, memoryMib: 256, provision: KILLER },
  });
  before = await contents();
  subjects = new Subjects(state.box, paths);
});

afterAll(async () => {
  await Promise.all([runner.kill(), spare.kill()]);
  await subjects.end();
  expect(await contents()).toEqual(before);
  await store.remove(TEMPLATE);
});

async function run(work: Work, death?: Death): Promise<{ end: End; passed: Passed[] }> {
  const vmId = await subjects.prepare(work);
  const job = {
    ...{ what: work, paths: state.paths, template: TEMPLATE, vmId, word: subjects.wordFor(work) },
    ...{ name: subjects.snapshotFor(work), timeoutMs: TIMEOUT_MS, at: death?.at },
    persistent: death?.victim === 'process',
  };
  return runner.run(job, async (at) => {
    if (death?.victim === 'process') return runner.kill();
    if (death?.victim === 'agent') return killAgent(state.paths, at.vmId);
    expect(await killQemu(death?.victim === 'source' ? vmId : at.vmId)).toBe(true);
  });
}

function expectGoodEnd(end: End, { victim }: Death): void {
  if (victim === 'process') return expect(end).toBeUndefined();
  if (end === undefined) throw new Error('the runner ended');
  expect(end.ms).toBeLessThan(TIMEOUT_MS + UNDO_MS);
  if (end.kind === 'failed' && end.code === undefined)
    throw new Error(`no error of ours: ${end.text}`);
}

const WORKS: readonly Work[] = [
  'snapshot.create',
  'snapshot.restore',
  'fork',
  'suspend',
  'resume',
  'clone',
  'pool.reset',
  'pool.release',
];

describe.each(WORKS)('%s', (work) => {
  const deaths = deathsOf(work, ALL);
  const last = deaths.findLast(({ victim }) => victim === 'process');
  it('passes each of its steps', { timeout: 4 * TIMEOUT_MS }, async () => {
    const { end, passed } = await run(work);
    expect(end).toMatchObject({ kind: 'done' });
    const names = passed.map(({ operation, step }) => `${operation} ${step}`);
    for (const { operation, step } of placesOf(work))
      expect(names).toContain(`${operation} ${step}`);
    await subjects.afterwards(work, { end });
  });

  it.each(
    deaths.map((death) => [`${death.at.operation} ${death.at.step}`, death.victim, death] as const),
  )('at %s: the death of %s', { timeout: 4 * TIMEOUT_MS }, async (_at, _victim, death) => {
    const { end, passed } = await run(work, death);
    const at = passed.find(
      ({ operation, step }) => operation === death.at.operation && step === death.at.step,
    );
    if (death.victim === 'process') [runner, spare] = [spare, new Runner()];
    await subjects.afterwards(work, { end, death, again: ALL || death === last });
    expect(at).toBeDefined();
    expectGoodEnd(end, death);
  });
});
