/** A VM as its user for a time has it in hand: nothing of it works once it was given back. */
import { PoolLeaseError } from '../errors.ts';
import { Commands } from '../vm/commands.ts';
import type { GuestAccess, Vm } from '../vm/index.ts';

/** What still answers after the end: it says nothing about the VM's next user. */
const ALWAYS: readonly PropertyKey[] = ['id', 'name', 'then', 'constructor'];

/**
 * What leaves nothing on the host that a reset in place does not undo. A VM whose user took anything else
 * in hand (a console that stays connected, QEMU's own monitor, what a later release offers) is thrown
 * away after use, where it would have been reset.
 */
const UNDONE_BY_RESET: readonly PropertyKey[] = [
  ...ALWAYS,
  'state',
  'fault',
  'guest',
  'explain',
  'commands',
  'snapshots',
  'info',
  'waitForState',
  'pause',
  'resume',
  'logs',
];

type Method = (this: unknown, ...args: unknown[]) => unknown;

/** A VM that is lent. */
export class Loan {
  /** What the user gets: the VM, as long as the loan lasts. */
  readonly vm: Vm;
  readonly #vm: Vm;
  readonly #pool: string;
  #isOver = false;
  #isClean = true;
  /** Calls on the VM that have not ended. */
  #pending = 0;

  constructor(vm: Vm, pool: string) {
    this.#vm = vm;
    this.#pool = pool;
    const access = this.#guestAccess();
    const guest: GuestAccess['guest'] = (o) => access.guest(o);
    this.vm = this.#guarded(vm, { commands: new Commands(access), guest });
  }

  /**
   * Ends it.
   * @returns whether a reset in place undoes all that was done: where a call is still under way nobody
   *   knows when it will do what
   */
  end(): boolean {
    this.#isOver = true;
    return this.#isClean && this.#pending === 0;
  }

  /** `commands` and their handles ask for a session each time, and get none after the end. */
  #guestAccess(): GuestAccess {
    const vm = this.#vm;
    const check = () => this.#check();
    return {
      id: vm.id,
      get state() {
        return vm.state;
      },
      get fault() {
        return vm.fault;
      },
      guest: async (o) => {
        check();
        const session = await vm.guest(o);
        check();
        return session;
      },
      explain: (error) => vm.explain(error),
    };
  }

  /** `target`, whose methods fail after the end; with some members replaced. */
  #guarded<T extends object>(target: T, own: Readonly<Record<PropertyKey, unknown>> = {}): T {
    const isVm = target === (this.#vm as object);
    const seen = new Map<PropertyKey, unknown>();
    return new Proxy(target, {
      get: (_target, name) => {
        if (typeof name === 'symbol' && name !== Symbol.asyncDispose)
          return Reflect.get(target, name) as unknown;
        if (!ALWAYS.includes(name)) this.#check();
        if (isVm && !UNDONE_BY_RESET.includes(name)) this.#isClean = false;
        if (name in own) return own[name];
        const known = seen.get(name);
        if (known !== undefined) return known;
        const value = Reflect.get(target, name, target) as unknown;
        if (name === 'constructor') return value;
        if (typeof value === 'function') return remember(this.#method(target, value as Method));
        if (name === 'snapshots') return remember(this.#guarded(value as object));
        return value;

        function remember(made: unknown): unknown {
          seen.set(name, made);
          return made;
        }
      },
    });
  }

  #method(target: object, method: Method): Method {
    return (...args) => {
      this.#check();
      const result = method.apply(target, args);
      if (!(result instanceof Promise)) return result;
      this.#pending += 1;
      const settled = () => (this.#pending -= 1);
      result.then(settled, settled);
      return result;
    };
  }

  #check(): void {
    if (!this.#isOver) return;
    throw new PoolLeaseError(`VM ${this.#vm.id} was given back to pool ${this.#pool}`, {
      pool: this.#pool,
      vmId: this.#vm.id,
      hint: 'Use a VM only until its lease is released; acquire another one.',
    });
  }
}
