/**
 * Every setting: its type, limits, default, and what to tell a user who got it wrong. The only
 * module that knows zod. Sources and their order are the business of `load.ts`.
 */
import { z } from 'zod';
import { PLAIN_MODES } from './network-modes.ts';
import { parseMib, parseMs } from './units.ts';

/** Smallest and largest guest memory, MiB. Below 128 Debian's kernel and Node do not come up. */
export const MEMORY_MIB = { min: 128, max: 1_048_576 } as const;
/** Most virtual CPUs of a VM. */
export const MAX_VCPUS = 64;
/** Disk size limits, MiB. */
export const DISK_MIB = { min: 64, max: 16 * 1_048_576 } as const;
/** Disk quota limits, MiB. A guest that boots writes some MiB; RLIMIT_FSIZE of QEMU is 2 TiB. */
export const DISK_QUOTA_MIB = { min: 16, max: 2 * 1_048_576 } as const;
/** Longest timeout that can be configured: setTimeout's own limit, 24.8 days. */
export const MAX_TIMEOUT_MS = 2_147_483_647;

const SIZE_HINT = 'give MiB as a number, or a size such as 512M or 2G';
const TIME_HINT = 'give ms as a number, or a duration such as 500ms, 90s or 5m';

/** A size in MiB, also as `2G`. What cannot be read stays as it is, for the type check to refuse. */
const mib = (min: number, max: number) =>
  z
    .preprocess((value) => parseMib(value) ?? value, z.int().min(min).max(max))
    .meta({ hint: `${SIZE_HINT}, from ${min} MiB to ${max} MiB` });

/** A duration in ms, also as `90s`. */
const ms = (min: number) =>
  z
    .preprocess((value) => parseMs(value) ?? value, z.int().min(min).max(MAX_TIMEOUT_MS))
    .meta({ hint: `${TIME_HINT}, at least ${min} ms` });

/** A whole number; from the environment it comes as text. */
const int = (min: number, max: number) =>
  z
    .preprocess(
      (value) => (typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value),
      z.int().min(min).max(max),
    )
    .meta({ hint: `give a whole number from ${min} to ${max}` });

const choice = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values).meta({ hint: `give one of ${values.join(', ')}` });

const text = (what: string) =>
  z
    .string()
    .min(1)
    .meta({ hint: `give ${what}` });

/** A directory or file; the loader makes it absolute and expands a leading `~/`. */
const path = (what: string) => text(`the path of ${what}`);

const vm = z.strictObject({
  /** Image that VMs stand on. */
  image: text('the name of an image (see qmp-agent image list)').default('base'),
  vcpus: int(1, MAX_VCPUS).default(1),
  memoryMib: mib(MEMORY_MIB.min, MEMORY_MIB.max).default(1024),
  /** Size of a VM's disk. Unset: the image's own. */
  diskMib: mib(DISK_MIB.min, DISK_MIB.max).optional(),
  /** Most that a VM's disk takes on the host, its snapshots included. Unset: no bound. */
  diskQuotaMib: mib(DISK_QUOTA_MIB.min, DISK_QUOTA_MIB.max).optional(),
  machine: choice('q35', 'microvm').default('q35'),
  accel: choice('auto', 'kvm', 'tcg').default('auto'),
  channel: choice('auto', 'vsock', 'virtio-serial').default('auto'),
  /** Unset: see `network.default`; of a clone: its template's. */
  network: z
    .union([z.enum(PLAIN_MODES), z.templateLiteral(['bridge=', z.string()])], {
      error: 'no network',
    })
    .meta({ hint: `give one of ${PLAIN_MODES.join(', ')}, or bridge= and the name of a bridge` })
    .optional(),
  /** From the start of QEMU to the agent's first answer. */
  readyTimeoutMs: ms(100).default(120_000),
  /** What a guest gets to go down by itself before QEMU is told to quit. */
  stopGraceMs: ms(0).default(15_000),
});

const network = z.strictObject({
  /** The network of a VM for which none is given. `auto`: see `network/default-mode.ts`. */
  default: choice('auto', ...PLAIN_MODES).default('auto'),
  /** CIDR of VMs' addresses, for `setup network`. Unset: as the host was set up before, see `network/host-settings.ts`. */
  pool: text('a private IPv4 network by its first address, e.g. 10.210.0.0/16').optional(),
});

const exec = z.strictObject({
  /** User in the guest. Unset: the image's own. */
  user: text('a user name or uid of the guest').optional(),
  /** Working directory in the guest. Unset: the image's, else the user's home. */
  workdir: text('a directory of the guest').optional(),
  /** Kills a command after this time. Unset: never. */
  timeoutMs: ms(1).optional(),
});

const qemu = z.strictObject({
  /** QEMU's program: a path, or a name looked up in PATH. */
  path: text("QEMU's program").default('qemu-system-x86_64'),
});

const state = z.strictObject({
  /** Images, disks, records. Unset: see `paths.ts`. */
  dataDir: path('a directory').optional(),
  /** Sockets; keep it short. Unset: see `paths.ts`. */
  runtimeDir: path('a directory').optional(),
  /** What can be made again. Unset: see `paths.ts`. */
  cacheDir: path('a directory').optional(),
  /** Memory of new templates, as on a tmpfs. Unset: with their disks. */
  memoryDir: path('a directory').optional(),
});

/** A list; from the environment and flags it comes as text with commas. */
const traces = z
  .preprocess(
    (value) => (typeof value === 'string' ? value.split(',').filter((word) => word !== '') : value),
    z.array(z.enum(['qmp', 'argv', 'agent'])),
  )
  .meta({ hint: 'give one or several of qmp, argv, agent, with commas between' });

const log = z.strictObject({
  level: choice('silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace').default('warn'),
  format: choice('pretty', 'json').default('pretty'),
  /** Unset: stderr. */
  file: path('a file').optional(),
  trace: traces.default([]),
});

/** The whole configuration. Strict: unknown keys are refused. */
export const configSchema = z.strictObject({
  vm: vm.prefault({}),
  network: network.prefault({}),
  exec: exec.prefault({}),
  qemu: qemu.prefault({}),
  state: state.prefault({}),
  log: log.prefault({}),
});

/** The configuration after validation, defaults filled in. */
export type Config = z.output<typeof configSchema>;
/** How and where to log. */
export type LogConfig = Config['log'];

/** The configuration where nobody says anything. */
export const DEFAULT_CONFIG: Config = configSchema.parse({});

/** One thing that is wrong with a value. */
export interface SchemaIssue {
  /** Where, e.g. `['vm', 'memoryMib']`; for an unknown key, its own path. */
  readonly path: readonly string[];
  readonly kind: 'unknown' | 'invalid';
  /** What zod says, in lower case and without a full stop. */
  readonly problem: string;
}

/** Validates a tree of values; never throws. All problems are reported, not just the first. */
export function checkConfig(
  input: unknown,
): { config: Config; issues: readonly [] } | { config: undefined; issues: readonly SchemaIssue[] } {
  const result = configSchema.safeParse(input);
  if (result.success) return { config: result.data, issues: [] };
  return { config: undefined, issues: result.error.issues.flatMap(toIssues) };
}

function toIssues(issue: z.core.$ZodIssue): SchemaIssue[] {
  const at = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...at, key], kind: 'unknown', problem: 'unknown' }));
  }
  const problem = issue.message.replace(/^Invalid \w+: /, '');
  return [{ path: at, kind: 'invalid', problem }];
}

/** A setting: where it stands and what to tell who got it wrong. */
export interface Field {
  /** E.g. `['vm', 'memoryMib']`. */
  readonly path: readonly [section: string, key: string];
  /** What would be right. */
  readonly hint: string;
}

/** All settings, in the order in which they are declared. */
export const FIELDS: readonly Field[] = Object.entries(configSchema.shape).flatMap(
  ([section, schema]) =>
    Object.entries(schema.def.innerType.shape).map(([key, field]): Field => ({
      path: [section, key],
      hint: hintOf(field as z.ZodType),
    })),
);

/** Metadata stands on the innermost schema, below `optional` and `default`. */
function hintOf(field: z.ZodType): string {
  let schema: z.ZodType = field;
  while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    schema = schema.def.innerType as z.ZodType;
  }
  return (schema.meta()?.['hint'] as string | undefined) ?? 'see docs/configuration.md';
}
