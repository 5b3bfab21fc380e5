/** Users of a pool, one after the other: who comes next finds nothing of who was there before. */
import { randomBytes } from 'node:crypto';
import { VmPool } from '../../src/pool/index.ts';
import type { StatePaths } from '../../src/vm/api.ts';
import type { Vm } from '../../src/vm/index.ts';
import { manyTimes, type SoakOptions } from './at-once.ts';

/** Every user leaves a word of its own that begins so. */
const MARK = 'left-by-user';

/** Leaves the word wherever users leave things. */
const leave = (word: string) => `
for dir in ~ /tmp /var/tmp /dev/shm; do echo ${word} > $dir/${word}; done
echo ${word} >> ~/.bash_history
export WORD=${word}
nohup sh -c 'sleep 9999; : ${word}' >/dev/null 2>&1 &
`;

/** Prints every place where a word is. */
const LOOK = `
ls -d /home/agent/${MARK}* /tmp/${MARK}* /var/tmp/${MARK}* /dev/shm/${MARK}* 2>/dev/null
grep -l ${MARK} /home/agent/.bash_history 2>/dev/null
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -o '${MARK}-[0-9a-f]\\{16\\}'
true
`;

async function look(vm: Vm, signal?: AbortSignal): Promise<string[]> {
  // By stdin: else it would find itself in its own command line.
  const options = { user: 'root', stdin: LOOK, signal };
  const { stdout } = await vm.commands.run(['/bin/sh', '-s'], options);
  return stdout.split('\n').filter(Boolean);
}

/** What a run of users has shown. */
export interface PoolReport {
  readonly users: number;
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/** @throws whatever `VmPool.create`, `pool.acquire` and `vm.commands.run` throw */
export async function soakPool(
  template: string,
  o: SoakOptions & { paths: StatePaths; timeoutMs: number },
): Promise<PoolReport> {
  const { paths, timeoutMs, signal } = o;
  const faults: string[] = [];
  const vm = { paths, timeoutMs };
  await using pool = await VmPool.create({ template, vm, minSize: 1, maxSize: 2, timeoutMs });
  const users = await manyTimes({ ...o, atOnce: 1 }, async (user) => {
    await using lease = await pool.acquire({ timeoutMs, signal });
    const found = await look(lease.vm, signal);
    if (found.length > 0) faults.push(`user ${user} found ${found.join(', ')}`);
    await lease.vm.commands.run(leave(`${MARK}-${randomBytes(8).toString('hex')}`), { signal });
    // What cannot be found cannot be missed: the look has to see what was just left.
    if (user === 1 && (await look(lease.vm, signal)).length < 6)
      faults.push('the look does not find what was left');
  });
  const { failures } = pool.stats();
  if (failures > 0) faults.push(`the pool counts ${failures} failures`);
  return { users, faults };
}
