/** The VM to which things are done, and what must be true of it afterwards, and of all around it. */
import { readdir, utimes } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { expect, vi } from 'vitest';
import type { StatePaths } from '../../../../src/vm/api.ts';
import { readRecord } from '../../../../src/vm/record.ts';
import { Vm } from '../../../../src/vm/vm.ts';
import { vmPaths } from '../../../../src/vm/vm-paths.ts';
import type { Sandbox } from '../../../integration/cli/command.ts';
import { SCALE } from '../../../scale.ts';
import { processesOf } from '../../cli/host.ts';
import type { Work } from './job.ts';
import type { Death } from './plan.ts';
import type { End } from './process.ts';

export const TEMPLATE = 'walk';
/** The snapshot that each has. */
const BASE = 'base';
const WORD = 'subject';
/** Until a guest whose agent was killed answers. */
const BACK_MS = 30_000 * SCALE;
/** What a process leaves that was killed is taken away when it is so old. */
const OLD_MS = 60_000;
/** All that a VM that stays may have in its directory. */
const FILES = /^(vm\.json|disk\.qcow2|snapshots\.json|(console|qemu)\.log(\.\d)?|.*\.?lock)$/;
/** qemu-img check: clusters that nobody refers to take space, and no more. */
const LEAKS_ONLY = 3;
/** Steps of a resume. */
const STILL_SAVED: readonly string[] = ['check', 'launch', 'spawned', 'load', 'commit'];
const NONE: readonly Work[] = ['clone', 'pool.reset', 'pool.release'];

/** One VM at a time, a clone that stays; another one where it is gone. */
export class Subjects {
  readonly #box: Sandbox;
  readonly #paths: StatePaths;
  #id: string | undefined;
  #saved = 0;

  constructor(box: Sandbox, paths: StatePaths) {
    this.#box = box;
    this.#paths = paths;
  }

  /** What is in the file of the VM of which a work makes a copy. */
  wordFor(work: Work): string {
    return work === 'clone' ? 'template' : WORD;
  }

  /** The snapshot that a work is about. */
  snapshotFor(work: Work): string {
    return work === 'snapshot.restore' ? BASE : `saved-${(this.#saved += 1)}`;
  }

  /** A VM in the state that the work needs. @returns its id; empty where the work needs none */
  async prepare(work: Work): Promise<string> {
    if (NONE.includes(work)) return '';
    const id = (this.#id ??= await this.#make());
    await using vm = await Vm.connect(id, { paths: this.#paths });
    if (work === 'snapshot.restore') await vm.commands.run('echo dirty > /var/tmp/word');
    if (work === 'resume') await vm.suspend();
    return id;
  }

  /** Proves that what survived is sound, and that nothing else did. */
  async afterwards(
    work: Work,
    { end, death, again = false }: { end: End; death?: Death; again?: boolean },
  ): Promise<void> {
    if (this.#id !== undefined && !NONE.includes(work)) {
      await this.#prove(this.#id, work, { end, death, again });
    }
    await this.#expectClean();
  }

  async end(): Promise<void> {
    if (this.#id === undefined) return;
    await using vm = await Vm.connect(this.#id, { paths: this.#paths });
    await vm.remove({ force: true });
  }

  async #make(): Promise<string> {
    await using vm = await Vm.fromTemplate(TEMPLATE, { paths: this.#paths, persistent: true });
    await vm.commands.run(`echo ${WORD} > /var/tmp/word`);
    await vm.snapshots.create(BASE);
    return vm.id;
  }

  async #prove(
    id: string,
    work: Work,
    { end, death, again }: { end: End; death: Death | undefined; again: boolean },
  ): Promise<void> {
    await using vm = await Vm.connect(id, { paths: this.#paths });
    const { state } = await vm.info();
    // Until a vCPU may have run, what is saved is whole.
    const step = work === 'resume' ? death?.at.step : undefined;
    if (step !== undefined && STILL_SAVED.includes(step)) expect(state).toBe('suspended');
    if (state === 'stopped') {
      expect(['qemu', 'source']).toContain(death?.victim);
      await this.#expectSound(id);
      await vm.remove({ force: true });
      this.#id = undefined;
      return;
    }
    if (state === 'suspended' || state === 'paused') await this.#wake(vm);
    const read = async () =>
      (await vm.commands.run('cat /var/tmp/word', { requestTimeoutMs: BACK_MS })).stdout.trim();
    const word = await read();
    if (work !== 'snapshot.restore') expect(word).toBe(WORD);
    else if (end?.kind === 'done') expect(word).toBe(WORD);
    else expect([WORD, 'dirty']).toContain(word);
    if (!again) return; // the next death meets the same operation on this VM
    await this.#again(vm, work);
    expect(await read()).toBe(WORD);
  }

  /** What was left half done can be mended, by the means that the documentation names. */
  async #wake(vm: Vm): Promise<void> {
    try {
      await vm.resume();
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_STATE', actual: 'half restored' });
      await vm.snapshots.restore(BASE);
      if (vm.state === 'paused') await vm.resume();
    }
  }

  /** The same, and nobody dies. */
  async #again(vm: Vm, work: Work): Promise<void> {
    if (work === 'snapshot.create') {
      const { name } = await vm.snapshots.create();
      await vm.snapshots.delete(name);
      for (const saved of await vm.snapshots.list())
        if (saved.name !== BASE) await vm.snapshots.delete(saved.name);
    } else if (work === 'snapshot.restore') {
      await vm.snapshots.restore(BASE);
    } else if (work === 'fork') {
      for (const child of await vm.fork()) {
        expect((await child.commands.run('cat /var/tmp/word')).stdout.trim()).toBe(WORD);
        await child.close();
      }
    } else {
      await vm.suspend();
      await vm.resume();
    }
  }

  async #expectSound(id: string): Promise<void> {
    const { diskPath } = vmPaths(this.#paths, id);
    const { exitCode, stdout, stderr } = await execa('qemu-img', ['check', diskPath], {
      reject: false,
    });
    if (exitCode !== 0 && exitCode !== LEAKS_ONLY) throw new Error(`${stdout}\n${stderr}`);
  }

  /** After `gc` there is the subject, where it lives, and the template. */
  async #expectClean(): Promise<void> {
    const { dataDir, runtimeDir } = this.#paths;
    const ids = this.#id === undefined ? [] : [this.#id];
    const namesIn = async (dir: string) =>
      (await readdir(dir).catch(() => [])).filter(
        (name) => name !== '.lock' && name !== '.names.lock',
      );
    // What it was suspended to is what its memory is mapped from.
    const records = await Promise.all(ids.map((id) => readRecord(vmPaths(this.#paths, id))));
    const inUse = records.flatMap((record) => basename(dirname(record?.run?.memoryPath ?? '')));
    await this.#age([join(dataDir, 'vms'), runtimeDir, join(dataDir, 'templates')]);
    await Vm.gc({ paths: this.#paths });
    await vi.waitFor(
      async () => {
        const files = await Promise.all(ids.map((id) => namesIn(vmPaths(this.#paths, id).dir)));
        expect({
          processes: (await processesOf(this.#box)).length,
          vms: await namesIn(join(dataDir, 'vms')),
          sockets: await namesIn(runtimeDir),
          checkpoints: await namesIn(join(dataDir, 'checkpoints')),
          templates: await namesIn(join(dataDir, 'templates')),
          others: files.flat().filter((name) => !FILES.test(name) && !inUse.includes(name)),
        }).toEqual({
          processes: ids.length,
          vms: ids,
          sockets: ids,
          checkpoints: [],
          templates: [TEMPLATE],
          others: [],
        });
      },
      { timeout: 5_000 * SCALE, interval: 50 },
    );
  }

  /** As if time had gone by. */
  async #age(dirs: readonly string[]): Promise<void> {
    const then = new Date(Date.now() - OLD_MS);
    for (const dir of dirs) {
      for (const name of await readdir(dir, { recursive: true }).catch(() => []))
        await utimes(join(dir, name), then, then).catch(() => undefined);
    }
  }
}
