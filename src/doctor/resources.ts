/** Memory, disk, Node. */
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { formatBytes } from '../config/units.ts';
import { availableMemoryBytes, QEMU_OVERHEAD_BYTES } from '../host-memory.ts';
import { fail, ok, warn, type Check } from './types.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** A build of `base` takes about this much at its peak. */
const BUILD_BYTES = 6 * GIB;
/** Below this not even VMs' overlays have room. */
const MIN_DISK_BYTES = GIB;
/** package.json's engines. */
const MIN_NODE = { major: 20, minor: 19 } as const;

/** What decides. */
export interface ResourceFacts {
  readonly dataDir: string;
  /** Free for this user where `dataDir` is or will be; undefined where it cannot be told. */
  readonly freeBytes: number | undefined;
  /** MemAvailable. */
  readonly availableBytes: number | undefined;
  /** Memory of a VM as configured. */
  readonly vmMemoryMib: number;
  readonly imageBuilt: boolean;
  /** `v20.19.0`. */
  readonly node: string;
}

/** Looks at the host. */
export async function probeResources(o: {
  dataDir: string;
  vmMemoryMib: number;
  imageBuilt: boolean;
}): Promise<ResourceFacts> {
  const [freeBytes, availableBytes] = await Promise.all([
    freeBytesAt(o.dataDir),
    availableMemoryBytes(),
  ]);
  return { ...o, freeBytes, availableBytes, node: process.version };
}

/** Of the nearest directory that is there. */
async function freeBytesAt(dir: string): Promise<number | undefined> {
  for (let at = dir; ; at = dirname(at)) {
    const found = await statfs(at).catch(() => undefined);
    if (found !== undefined) return found.bavail * found.bsize;
    if (at === dirname(at)) return undefined;
  }
}

/** Judges. */
export function judgeResources(facts: ResourceFacts): Check[] {
  return [judgeDisk(facts), judgeMemory(facts), judgeNode(facts)];
}

function judgeDisk({ dataDir, freeBytes, imageBuilt }: ResourceFacts): Check {
  const id = 'disk';
  if (freeBytes === undefined) {
    return warn(id, `free space of ${dataDir} cannot be told`, 'check it with df');
  }
  const found = `${formatBytes(freeBytes)} free in ${dataDir}`;
  const fix = 'free some space, or set state.dataDir to a larger disk';
  if (freeBytes < MIN_DISK_BYTES) return fail(id, found, fix);
  if (freeBytes < BUILD_BYTES && !imageBuilt) {
    return warn(id, `${found}; a build of base takes ${formatBytes(BUILD_BYTES)}`, fix);
  }
  return ok(id, found);
}

function judgeMemory({ availableBytes, vmMemoryMib }: ResourceFacts): Check {
  const id = 'memory';
  if (availableBytes === undefined) {
    return warn(id, 'available memory cannot be told', 'check it with free -h');
  }
  const found = `${formatBytes(availableBytes)} available`;
  return availableBytes < vmMemoryMib * MIB + QEMU_OVERHEAD_BYTES
    ? warn(
        id,
        `${found}; a VM has ${vmMemoryMib} MiB`,
        'end other programs, or give VMs less with vm.memoryMib',
      )
    : ok(id, found);
}

function judgeNode({ node }: ResourceFacts): Check {
  const [major = 0, minor = 0] = node.replace(/^v/, '').split('.').map(Number);
  const old = major < MIN_NODE.major || (major === MIN_NODE.major && minor < MIN_NODE.minor);
  return old
    ? fail(
        'node',
        `Node ${node} is too old`,
        `install Node ${MIN_NODE.major}.${MIN_NODE.minor} or newer`,
      )
    : ok('node', `Node ${node}`);
}
