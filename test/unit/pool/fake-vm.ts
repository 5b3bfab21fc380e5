/** VMs that fail where a real one cannot be made to, and a source of them. */
import { VmDiedError } from '../../../src/errors.ts';
import type { VmSource } from '../../../src/pool/index.ts';
import type { Vm, VmState } from '../../../src/vm/index.ts';

/** What a pool needs of a VM. */
export class FakeVm {
  readonly id: string;
  state: VmState = 'running';
  closed = 0;
  /** Calls on it that have not ended. */
  readonly #fault = new AbortController();
  ping: () => Promise<number> = () => Promise.resolve(1);
  readonly snapshots = { list: () => Promise.resolve([this.id]) };
  /** Ends {@link pause}. */
  onPause: (() => void) | undefined;

  constructor(id: string) {
    this.id = id;
  }

  get fault(): AbortSignal {
    return this.#fault.signal;
  }

  guest() {
    return Promise.resolve({ ping: () => this.ping() });
  }

  pause(): Promise<void> {
    return new Promise((resolve) => (this.onPause = resolve));
  }

  console(): Promise<string> {
    return Promise.resolve(`console of ${this.id}`);
  }

  info() {
    return Promise.resolve({ pid: undefined });
  }

  close(): Promise<void> {
    this.closed += 1;
    this.state = 'removed';
    return Promise.resolve();
  }

  die(): void {
    this.#fault.abort(new VmDiedError(`VM ${this.id} is gone`));
  }
}

/** Makes {@link FakeVm}s; each step can be held up or made to fail. */
export class FakeSource {
  readonly vms: FakeVm[] = [];
  attempts = 0;
  /** ms that making one takes. */
  createMs = 1_000;
  resetMs = 100;
  createError: Error | undefined;
  resetError: Error | undefined;

  asSource(o: { resets: boolean } = { resets: true }): VmSource {
    const source: VmSource = {
      strategy: 'fake',
      bytesPerVm: 1,
      create: async (signal) => {
        this.attempts += 1;
        await elapse(this.createMs, signal);
        if (this.createError) throw this.createError;
        const vm = new FakeVm(`vm${this.vms.length}`);
        this.vms.push(vm);
        return vm as unknown as Vm;
      },
    };
    if (!o.resets) return source;
    return {
      ...source,
      reset: async (_vm, signal) => {
        await elapse(this.resetMs, signal);
        if (this.resetError) throw this.resetError;
      },
    };
  }

  /** VMs that were not closed. */
  get alive(): FakeVm[] {
    return this.vms.filter((vm) => vm.closed === 0);
  }
}

function elapse(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
