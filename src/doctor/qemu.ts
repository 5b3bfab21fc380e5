/** QEMU: presence, version, machine types, sandbox, qemu-img. */
import { ioUringObstacle } from '../vm/disk-aio.ts';
import { findProgram, runProgram } from './probe.ts';
import { fail, ok, warn, type Check } from './types.ts';

/** Oldest QEMU that the project is tested with: Debian 12's. */
const MIN_VERSION = { major: 7, minor: 2 } as const;
const INSTALL = 'apt install qemu-system-x86 qemu-utils';

/** What decides. */
export interface QemuFacts {
  /** As configured. */
  readonly program: string;
  readonly path: string | undefined;
  /** Outputs; undefined where the program failed or is missing. */
  readonly version: string | undefined;
  readonly machines: string | undefined;
  readonly help: string | undefined;
  readonly imgPath: string | undefined;
  /** Why it cannot use io_uring; undefined where it can, or is missing. */
  readonly ioUringObstacle: string | undefined;
}

/** Looks at the host. */
export async function probeQemu(program: string, env: NodeJS.ProcessEnv): Promise<QemuFacts> {
  const [path, imgPath] = await Promise.all([
    findProgram(program, env),
    findProgram('qemu-img', env),
  ]);
  const ask = async (...args: string[]): Promise<string | undefined> =>
    path === undefined ? undefined : runProgram(path, args);
  const [version, machines, help, obstacle] = await Promise.all([
    ask('--version'),
    ask('-machine', 'help'),
    ask('-help'),
    path === undefined ? undefined : ioUringObstacle(path),
  ]);
  return { program, path, version, machines, help, imgPath, ioUringObstacle: obstacle };
}

/** Judges. */
export function judgeQemu(facts: QemuFacts): Check[] {
  const img =
    facts.imgPath === undefined
      ? fail('qemu.img', 'qemu-img is missing', 'apt install qemu-utils')
      : ok('qemu.img', `qemu-img is ${facts.imgPath}`);
  if (facts.path === undefined) {
    return [fail('qemu.program', `${facts.program} is missing`, INSTALL), img];
  }
  return [
    judgeVersion(facts),
    ...judgeMachines(facts.machines ?? ''),
    judgeSandbox(facts),
    judgeAio(facts),
    img,
  ];
}

function judgeVersion({ path, version }: QemuFacts): Check {
  const match = /version (\d+)\.(\d+)/.exec(version ?? '');
  if (match === null) {
    return fail(
      'qemu.program',
      `${path} does not tell its version`,
      `${INSTALL}, or set qemu.path`,
    );
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const found = `QEMU ${major}.${minor} (${path})`;
  const old =
    major < MIN_VERSION.major || (major === MIN_VERSION.major && minor < MIN_VERSION.minor);
  return old
    ? fail(
        'qemu.program',
        `${found} is older than ${MIN_VERSION.major}.${MIN_VERSION.minor}`,
        'use Debian 12, Ubuntu 24.04 or later, or set qemu.path to a newer one',
      )
    : ok('qemu.program', found);
}

function judgeMachines(machines: string): Check[] {
  return (['q35', 'microvm'] as const).map((type) =>
    new RegExp(`^${type}\\s`, 'm').test(machines)
      ? ok(`qemu.machine.${type}`, `QEMU offers ${type}`)
      : fail(`qemu.machine.${type}`, `QEMU does not offer ${type}`, INSTALL),
  );
}

function judgeSandbox({ help }: QemuFacts): Check {
  return /^-sandbox /m.test(help ?? '')
    ? ok('qemu.sandbox', 'QEMU offers -sandbox (seccomp)')
    : fail(
        'qemu.sandbox',
        'QEMU was built without -sandbox',
        `${INSTALL}: the distribution's QEMU has it`,
      );
}

function judgeAio({ ioUringObstacle }: QemuFacts): Check {
  const id = 'qemu.io_uring';
  if (ioUringObstacle === undefined) return ok(id, 'QEMU reads and writes disks by io_uring');
  return warn(
    id,
    `QEMU reads and writes disks by threads, as io_uring does not work: ${ioUringObstacle}`,
    'sysctl kernel.io_uring_disabled=0, or a seccomp profile of the container that allows it; without it restores of snapshots take 0.3 s longer',
  );
}
