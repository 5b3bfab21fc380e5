/** The VMs of a pool, and what each of them is doing. */
import type { Vm } from '../vm/index.ts';

/** What a VM of a pool is doing. */
export type MemberState = 'idle' | 'leased' | 'resetting' | 'leaving';

/** One VM of a pool. */
export class Member {
  readonly vm: Vm;
  /** `performance.now()` from which on it is not lent any more. */
  readonly expiresAt: number;
  state: MemberState = 'idle';
  /** `performance.now()` since which it has been idle. */
  idleSince = 0;
  /** Times it was lent: who looked at it before must look again. */
  uses = 0;
  /** Set when it must not be lent again. */
  isPoisoned = false;
  /** Ends the watch over its fault. */
  readonly unwatched = new AbortController();

  constructor(vm: Vm, expiresAt: number) {
    this.vm = vm;
    this.expiresAt = expiresAt;
  }

  /** It is somebody's from now on. */
  lend(): void {
    this.state = 'leased';
    this.uses += 1;
  }

  /** Whether it can be lent, as far as can be told without asking it. */
  isFit(now: number): boolean {
    const { vm } = this;
    return !this.isPoisoned && !vm.fault.aborted && vm.state === 'running' && now < this.expiresAt;
  }
}

/** All of them. */
export class Roster {
  readonly #members = new Set<Member>();
  /** The one that was idle last is at the end, and goes first: the others may become superfluous. */
  #idle: Member[] = [];

  get size(): number {
    return this.#members.size;
  }

  /** Those that are idle, longest first. */
  get idle(): readonly Member[] {
    return this.#idle;
  }

  get all(): readonly Member[] {
    return [...this.#members];
  }

  count(state: MemberState): number {
    let count = 0;
    for (const member of this.#members) if (member.state === state) count += 1;
    return count;
  }

  /** Takes a new one in. */
  add(member: Member): void {
    this.#members.add(member);
  }

  /** It is idle from now on. */
  park(member: Member, now: number): void {
    member.state = 'idle';
    member.idleSince = now;
    this.#idle.push(member);
  }

  /** The idle one to be lent next; undefined where there is none. */
  take(): Member | undefined {
    return this.#idle.pop();
  }

  /** It is on its way out. */
  leave(member: Member): void {
    if (member.state === 'idle') this.#idle = this.#idle.filter((one) => one !== member);
    member.state = 'leaving';
  }

  /** It is gone, and counts no more. */
  remove(member: Member): void {
    this.leave(member);
    this.#members.delete(member);
  }
}
