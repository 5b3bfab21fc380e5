/** What a VM's network log says, as it comes. */
import { createInterface } from 'node:readline';
import type { ChildProcess } from 'node:child_process';
import { expect, vi } from 'vitest';
import type { TrafficRecord } from '../../../src/network/index.ts';
import { SCALE } from '../../scale.ts';
import type { World } from './world.ts';

/** Follows the log of one VM until its world ends. */
export class Records implements Disposable {
  readonly #child: ChildProcess;
  #seen: TrafficRecord[] = [];

  constructor(world: World, vm: string) {
    this.#child = world.start('net', 'log', vm, '--follow', '--json');
    createInterface({ input: this.#child.stdout! }).on('line', (line) =>
      this.#seen.push(JSON.parse(line) as TrafficRecord),
    );
  }

  /** Forgets what there is. */
  clear(): void {
    this.#seen = [];
  }

  /** Those since it was cleared. */
  get all(): readonly TrafficRecord[] {
    return this.#seen;
  }

  /** Waits for a record with these values. */
  async expect(wanted: Partial<Record<string, unknown>>): Promise<void> {
    await vi.waitFor(
      () => expect(this.#seen).toEqual(expect.arrayContaining([expect.objectContaining(wanted)])),
      { timeout: 10_000 * SCALE, interval: 50 },
    );
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGTERM');
  }
}
