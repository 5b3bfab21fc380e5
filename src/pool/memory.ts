/** No pool promises more memory than the host has: the pools of this process share what there is. */
import { formatBytes } from '../config/units.ts';
import { PoolMemoryError } from '../errors.ts';
import { availableMemoryBytes } from '../host-memory.ts';

/** What one pool may use. */
export interface MemoryClaim {
  readonly pool: string;
  readonly maxSize: number;
  /** What one VM could use at most. */
  readonly bytesPerVm: number;
}

/** A claim that was granted. */
export interface MemoryGrant {
  /** What of it is used already, and thus missing from what the host has available. */
  usedBytes: () => Promise<number>;
  /** Gives it back. Idempotent. */
  release(): void;
}

/** All that was promised to pools of one host. */
export class MemoryLedger {
  readonly #availableBytes: () => Promise<number | undefined>;
  readonly #grants = new Map<MemoryGrant, number>();

  /** @param availableBytes what the host has now; undefined where it cannot be told */
  constructor(availableBytes: () => Promise<number | undefined> = availableMemoryBytes) {
    this.#availableBytes = availableBytes;
  }

  /**
   * Grants a claim where the host has as much, after all that other pools were promised and do not use yet.
   * Where the host does not tell what it has, every claim is granted.
   * @throws PoolMemoryError
   */
  async claim(claim: MemoryClaim): Promise<MemoryGrant> {
    const neededBytes = claim.maxSize * claim.bytesPerVm;
    const hostBytes = (await this.#availableBytes()) ?? Infinity;
    const used = new Map<MemoryGrant, number>();
    for (const grant of this.#grants.keys()) used.set(grant, await grant.usedBytes());
    // From here on nothing is awaited, so that no two claims are granted the same bytes.
    let availableBytes = hostBytes;
    for (const [grant, bytes] of this.#grants) {
      availableBytes -= Math.max(0, bytes - (used.get(grant) ?? 0));
    }
    if (neededBytes > availableBytes) throw tooMuch(claim, neededBytes, availableBytes);
    const grant: MemoryGrant = {
      usedBytes: () => Promise.resolve(0),
      release: () => this.#grants.delete(grant),
    };
    this.#grants.set(grant, neededBytes);
    return grant;
  }
}

/** This host's. */
export const hostMemory = new MemoryLedger();

function tooMuch(
  { pool, maxSize, bytesPerVm }: MemoryClaim,
  neededBytes: number,
  available: number,
): PoolMemoryError {
  const availableBytes = Math.max(0, available);
  const fits = Math.floor(availableBytes / bytesPerVm);
  const lower = fits > 0 ? `Lower maxSize to ${fits}` : 'Free memory on the host';
  return new PoolMemoryError(
    `pool ${pool}: maxSize is ${maxSize}, and ${maxSize} VMs of up to ${formatBytes(bytesPerVm)} could use ${formatBytes(neededBytes)}; the host has ${formatBytes(availableBytes)} left`,
    {
      pool,
      field: 'pool.maxSize',
      value: maxSize,
      neededBytes,
      availableBytes,
      hint: `${lower}, or give VMs less memory (vm.memoryMib); where they are known to use less, say so with countedMemoryMib.`,
    },
  );
}
