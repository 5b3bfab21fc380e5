import type { Vm } from '../vm/index.ts';
import type { VmLease } from './types.ts';

/** What becomes of the VM. */
export type LeaseEnd = 'release' | 'destroy';

/** {@link VmLease}; what its end means is the pool's business. */
export class Lease implements VmLease {
  readonly vm: Vm;
  readonly #end: (how: LeaseEnd) => Promise<void>;
  #ended: Promise<void> | undefined;

  /** @param end called once at most */
  constructor(vm: Vm, end: (how: LeaseEnd) => Promise<void>) {
    this.vm = vm;
    this.#end = end;
  }

  release(): Promise<void> {
    this.#ended ??= this.#end('release');
    return this.#ended;
  }

  destroy(): Promise<void> {
    this.#ended ??= this.#end('destroy');
    return this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}
