/**
 * The public face of a VM: what a caller gives, what it gets, and what a {@link VmInstance} can do.
 * Types only; `vm.ts` is the class behind them.
 */
import type { Duplex } from 'node:stream';
import type { GuestSession } from '../guest/index.ts';
import type { CaptureOptions, EgressRequest } from '../network/index.ts';
import type { DefaultNetwork, LanOptions } from '../network/index.ts';
import type { NetworkMode } from '../network/mode.ts';
import type { CommandsApi } from './command-types.ts';
import type { CheckpointDiff, VmDiffOptions } from './diff/types.ts';
import type { NetworkApi } from './network-types.ts';
import type { SnapshotsApi } from './snapshot-types.ts';
import type { WaitOptions } from './wait-options.ts';

export type { EgressOptions, EgressRequest, LimitOptions } from '../network/index.ts';
export type {
  CaptureEnd,
  CaptureOptions,
  CaptureResult,
  CaptureStats,
  NetworkCapture,
} from '../network/index.ts';
export type { DefaultNetwork, LanOptions } from '../network/index.ts';
export type { NetworkMode } from '../network/mode.ts';
export type * from './network-types.ts';
export type { WaitOptions } from './wait-options.ts';

/** Where all state lives. Both can be set; `config/paths.ts` has the defaults. */
export interface StatePaths {
  /** Images, disks, records: must survive a reboot. */
  readonly dataDir: string;
  /** Sockets: short (a unix socket path has 107 bytes), may be a tmpfs. */
  readonly runtimeDir: string;
  /** What can be made again: unpacked agents, initramfs files. */
  readonly cacheDir: string;
}

/** Where a call finds the VMs. */
export interface StateOptions {
  /** Default: `resolvePaths()` of `config/paths.ts`. */
  paths?: StatePaths | undefined;
}

/** How guest code is executed; `auto` takes KVM where it works, else TCG with a warning. */
export type AccelChoice = 'auto' | 'kvm' | 'tcg';
/** What {@link AccelChoice} came down to. */
export type Accel = 'kvm' | 'tcg';
/** QEMU machine type. */
export type MachineType = 'q35' | 'microvm';

/** What a caller may ask of a new VM. All of it is optional. */
export interface VmCreateOptions extends StateOptions, WaitOptions {
  /** Name of an image in the store. Default `base`. */
  image?: string | undefined;
  /** Unique among VMs: letters, digits, `.`, `_`, `-`; not 12 hex digits. Default: none. */
  name?: string | undefined;
  /** Virtual CPUs, 1–64. Default 1. */
  vcpus?: number | undefined;
  /** Guest memory in MiB, 128–1048576. Default 1024. */
  memoryMib?: number | undefined;
  /** Size of the VM's disk in MiB; at least the image's own. Default: the image's own. */
  diskMib?: number | undefined;
  /**
   * Most MiB that the VM's disk takes on the host, its snapshots included, 16–2097152. Where it is
   * reached the VM is paused, and calls fail with `DiskQuotaError`. Default: no bound.
   */
  diskQuotaMib?: number | undefined;
  /** Default `auto`. */
  accel?: AccelChoice | undefined;
  /** Default `q35`, see `config/schema.ts`. */
  machine?: MachineType | undefined;
  /** AF_VSOCK context id, ≥ 3. Default: random. Only where the host has vhost-vsock. */
  cid?: number | undefined;
  /** `auto` takes vsock where the host has /dev/vhost-vsock. Default `auto`. */
  channel?: 'auto' | 'vsock' | 'virtio-serial' | undefined;
  /**
   * What it can reach. `isolated`: nothing. `nat-filtered`: what {@link VmCreateOptions.egress} allows, by a
   * tap of its own and the host's address. `user`: QEMU's user-mode network, which filters nothing: all that
   * the host can reach, its own loopback included. `bridge=NAME`: a port of this bridge of the host, filtered
   * only as to who it says it is; needs {@link VmCreateOptions.lan}. Default: `nat-filtered` where `egress`, `publish` or
   * `ipv6` is given, else {@link VmCreateOptions.defaultNetwork}.
   */
  network?: NetworkMode | undefined;
  /**
   * Its network where nothing else says so. `auto`: `nat-filtered` where this process may make taps and the host
   * is set up for it, else `isolated`, with a warning. Default: QMP_AGENT_NETWORK_DEFAULT, else `auto`.
   */
  defaultNetwork?: DefaultNetwork | undefined;
  /** With `bridge=NAME`: its address there. Needed, as its guest has no DHCP client. */
  lan?: LanOptions | undefined;
  /**
   * With `nat-filtered`: what it may reach. Default: web, ssh and git (TCP 80, 443, 22, 9418) at public
   * addresses.
   */
  egress?: EgressRequest | undefined;
  /**
   * With `nat-filtered`: ports of the host that lead to ports of the guest, `8080:80`, `5353:53/udp`, or
   * `0.0.0.0:8080:80`. Bound to the host's loopback where no address is given. Default none.
   */
  publish?: readonly string[] | undefined;
  /**
   * With `nat-filtered`: whether it has IPv6 besides IPv4, under the same policy. The host is to be set up for it
   * (`qmp-agent setup network --ipv6`), and this process to be one that may make taps. Default false: no IPv6 packet
   * leaves it.
   */
  ipv6?: boolean | undefined;
  /**
   * With `nat-filtered` and `bridge=NAME`: its packets, from the guest's first one on, to a file or stream, until it is
   * closed or its tap goes: a persistent VM outlives its capture. A bound that is reached, or a full disk, is a warning
   * (`network.capture`), and the VM goes on. Default: none. Of a VM that runs: {@link NetworkApi.capture}.
   */
  pcap?: CaptureOptions | undefined;
  /** Guest hostname. Default: the name, else the id. */
  hostname?: string | undefined;
  /** Extra words for the kernel command line (diagnosis and tests). Default none. */
  kernelArgs?: readonly string[] | undefined;
  /**
   * `false` (default): the VM belongs to this process and dies with it, its disk too.
   * `true`: a detached VM that any process may use until it is removed.
   */
  persistent?: boolean | undefined;
  /** QEMU's program. Default `qemu-system-x86_64` from PATH. */
  qemuPath?: string | undefined;
  /** Told what is going on, for progress lines. */
  onProgress?: ((step: CreateStep) => void) | undefined;
  /** ms from the call to the agent's first answer. Default {@link DEFAULT_READY_TIMEOUT_MS}. */
  timeoutMs?: number | undefined;
}

/** What a clone may have of its own. All of it is optional. */
export interface VmCloneOptions extends StateOptions, WaitOptions {
  /** As `VmCreateOptions.name`. */
  name?: string | undefined;
  /** Guest hostname. Default: the name, else the id. */
  hostname?: string | undefined;
  /** As `VmCreateOptions.persistent`. Default false. */
  persistent?: boolean | undefined;
  /** As `VmCreateOptions.diskQuotaMib`, for what is the clone's own. Default: the template's. */
  diskQuotaMib?: number | undefined;
  /** As `VmCreateOptions.network`. Default: the template's. */
  network?: NetworkMode | undefined;
  /** As `VmCreateOptions.lan`; never the template's, as no two VMs have one address. */
  lan?: LanOptions | undefined;
  /** As `VmCreateOptions.egress`. Default: the template's. */
  egress?: EgressRequest | undefined;
  /** As `VmCreateOptions.publish`; a template has none. */
  publish?: readonly string[] | undefined;
  /** As `VmCreateOptions.ipv6`. Default: the template's, with `nat-filtered`. */
  ipv6?: boolean | undefined;
  /** As `VmCreateOptions.pcap`; a template has none. */
  pcap?: CaptureOptions | undefined;
  /** As `VmCreateOptions.cid`. Default: random. */
  cid?: number | undefined;
  /**
   * Keep it ready: it has run a first command (`true`) and is paused, so that it takes memory and no
   * processor time. `resume` sets its clock and lets it go on. Default false.
   */
  paused?: boolean | undefined;
  /** QEMU's program. Default: the one in PATH; it must be of the template's version. */
  qemuPath?: string | undefined;
  onProgress?: ((step: CreateStep) => void) | undefined;
}

/** How many children a fork has, and what they may have of their own. All of it is optional. */
export interface VmForkOptions extends WaitOptions {
  /** How many, 1–64. Default: as many as there are names, else 1. */
  count?: number | undefined;
  /** As `VmCreateOptions.name`, one for each; also their host names. Default: none. */
  names?: readonly string[] | undefined;
  /** As `VmCreateOptions.persistent`. Default false. */
  persistent?: boolean | undefined;
}

/** Default of {@link VmCreateOptions.timeoutMs}: minutes, as software emulation on a busy host is slow. */
export const DEFAULT_READY_TIMEOUT_MS = 120_000;

/** Steps of {@link VmStatics.create}, in order. */
export type CreateStep = 'image' | 'disk' | 'launch' | 'boot' | 'ready';

/**
 * - `starting`: QEMU runs, the agent has not answered yet
 * - `running`: ready
 * - `paused`: vCPUs stopped, by `pause`, or because the host's disk is full or the VM's quota reached
 * - `stopping`: on its way down
 * - `suspended`: no QEMU; its memory is on the host's disk, and `resume` goes on from there
 * - `stopped`: no QEMU; a persistent VM's disk is kept and it can be started again
 * - `removed`: nothing left
 * - `broken`: its record cannot be read; only `remove` and `gc` work
 */
export type VmState =
  'starting' | 'running' | 'paused' | 'suspended' | 'stopping' | 'stopped' | 'removed' | 'broken';

/** One VM, as `list` and `inspect` show it. */
export interface VmInfo {
  /** 12 hex digits. */
  readonly id: string;
  readonly name: string | undefined;
  readonly state: VmState;
  /** Why the VM is in that state, where there is more to say (`host disk full`, the record's defect). */
  readonly stateDetail: string | undefined;
  readonly persistent: boolean;
  readonly image: string;
  /** What it is a clone of: the very template, as another may have the name since. */
  readonly template: { readonly name: string; readonly id: string } | undefined;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** Virtual size of the disk. */
  readonly diskBytes: number;
  /** Most that the disk may take on the host; undefined: no bound. */
  readonly diskQuotaBytes: number | undefined;
  /** Undefined until it was decided at the first start. */
  readonly accel: Accel | undefined;
  readonly machine: MachineType;
  readonly channel: 'vsock' | 'virtio-serial';
  /** Undefined: it was made when VMs had no network device, and has none. */
  readonly network: NetworkMode | undefined;
  /** Whether it has IPv6, too; undefined: it has none. */
  readonly ipv6: boolean | undefined;
  /**
   * Of its network device. Undefined: it has none, or it is an isolated clone or child, whose guest has the address of
   * the machine that it is a copy of.
   */
  readonly mac: string | undefined;
  /** AF_VSOCK context id while it runs on vsock. */
  readonly cid: number | undefined;
  /** QEMU's pid while it runs. */
  readonly pid: number | undefined;
  /** The owning process of an ephemeral VM. */
  readonly ownerPid: number | undefined;
  /** ISO 8601, host clock. */
  readonly createdAt: string;
  /** ISO 8601, host clock; when QEMU was last started. */
  readonly startedAt: string | undefined;
  /** ISO 8601, host clock; of a suspended VM: when its memory was saved. */
  readonly suspendedAt: string | undefined;
  /** Of a suspended VM: bytes that its memory takes on the host's disk. Only `inspect` fills it. */
  readonly suspendedBytes?: number | undefined;
  /** Bytes that the overlay takes on the host. Only `inspect` fills it. */
  readonly diskUsedBytes?: number | undefined;
  /** QEMU's whole command line. Only `inspect` fills it. */
  readonly argv?: readonly string[] | undefined;
  /** Where its files are. */
  readonly dir: string;
  /** Where its sockets are. */
  readonly runtimeDir: string;
}

/** Which of a VM's logs. `console`: the guest's serial console; `qemu`: QEMU's stderr. */
export type LogKind = 'console' | 'qemu';

/** One thing that gc, or a create or list on its way, took away. */
export interface Reaped {
  /** `vm` (dead owner), `process` (a QEMU nobody owns), `dir`, `socket`, `temp`, `tap` (with its rules). */
  readonly kind: 'vm' | 'process' | 'dir' | 'socket' | 'temp' | 'tap';
  /** Path, or `pid N`, or the tap's name. */
  readonly path: string;
}

/** Options of {@link VmInstance.stop}. */
export interface StopOptions extends WaitOptions {
  /**
   * ms for the guest to go down by itself (agent, then ACPI power button), before QEMU is told to
   * quit. Default 15 000.
   */
  graceMs?: number | undefined;
}

/** Options of {@link VmInstance.kill}. */
export interface KillOptions extends WaitOptions {
  /** Throws away what a suspended VM has in its memory; it is `stopped` then. Default false: StateError. */
  discard?: boolean | undefined;
}

/** What `vm.commands` needs of its VM. */
export interface GuestAccess {
  readonly id: string;
  /** Last known state. */
  readonly state: VmState;
  /**
   * Aborted as soon as this VM can serve no call: its reason is a `VmDiedError`, `GuestPanicError`,
   * `HostError` (`ERR_HOST_DISK_FULL`) or `DiskQuotaError`. Another signal after a start or resume, so ask each time.
   */
  readonly fault: AbortSignal;
  /**
   * The session with the agent, opened where there is none, or none any more. Shared: do not close it.
   * @throws StateError not running. TimeoutError nobody answers, or all channels are busy, for
   *   `timeoutMs` (default 30 000). The fault's reason.
   */
  guest(o?: WaitOptions): Promise<GuestSession>;
  /**
   * Why a call on the session really failed: a lost connection is often the first sign of a dead VM.
   * Waits briefly for the fault, and gives its reason, else the error itself.
   */
  explain(error: unknown): Promise<unknown>;
}

/** One VM in the hands of this process. */
export interface VmInstance extends GuestAccess, AsyncDisposable {
  /** Commands in the guest. */
  readonly commands: CommandsApi;
  /** Snapshots in place. */
  readonly snapshots: SnapshotsApi;
  readonly network: NetworkApi;
  readonly name: string | undefined;
  /** State and facts, read from disk and the host now. */
  info(): Promise<VmInfo>;
  /**
   * Waits for a state (or one of several).
   * @throws StateError where the VM has reached an end from which it cannot come.
   * @throws TimeoutError after `timeoutMs` (default 60 000).
   */
  waitForState(state: VmState | readonly VmState[], o?: WaitOptions): Promise<VmState>;
  /**
   * Starts a stopped persistent VM and waits until its agent answers. With `discard` a suspended one,
   * too: from its disk, and what it had in its memory is lost.
   * @throws StateError
   */
  start(o?: WaitOptions & { discard?: boolean }): Promise<void>;
  /**
   * Shuts down: agent, ACPI, QMP quit, SIGTERM, SIGKILL, each with its deadline. No-op when stopped.
   * @throws StateError it is suspended
   */
  stop(o?: StopOptions): Promise<void>;
  /** SIGKILL to QEMU, at once. No-op when stopped. @throws StateError it is suspended */
  kill(o?: KillOptions): Promise<void>;
  /** Deletes a stopped or suspended VM with its disk; `force` kills it first. @throws StateError */
  remove(o?: WaitOptions & { force?: boolean }): Promise<void>;
  /** Stops the vCPUs (QMP `stop`). @throws StateError */
  pause(o?: WaitOptions): Promise<void>;
  /**
   * Writes memory and devices to the host's disk, beside the VM's own, and ends QEMU: its memory is
   * free, and {@link resume} goes on from there, also after a reboot of the host. Persistent VMs only.
   * Where it fails the VM goes on. `timeoutMs` is 120 000 by default.
   * @throws StateError, HostError (ERR_HOST_DISK_FULL, ERR_HOST_PERMISSION), GuestError, TimeoutError
   */
  suspend(o?: WaitOptions): Promise<void>;
  /**
   * Lets the vCPUs run again (QMP `cont`), also after a full host disk or a restore; brings a suspended
   * VM back.
   * @throws StateError, GuestConnectError (after a restore or a suspend, and the VM is paused),
   *   SuspendError, HostError, LaunchError (it is still suspended)
   */
  resume(o?: WaitOptions): Promise<void>;
  /**
   * Children of this VM as it runs: new VMs that go on from this instant, with its processes, memory and
   * files, each a machine of its own before any process of a command goes on in it. This one stands
   * still for a moment and goes on, its commands and its connection too. Default of `timeoutMs`: 120 000.
   * @throws StateError not running, on a bridge (two would have one address), or QEMU is busy with something else; ConfigError, TemplateError
   *   (ERR_TEMPLATE_MISMATCH), HostError, LaunchError, VmDiedError, GuestError, TimeoutError; no child is
   *   left then
   */
  fork(o?: VmForkOptions): Promise<VmInstance[]>;
  /**
   * Files that are different on its disk now from what it stands on, or from another checkpoint. A VM that
   * runs flushes what it has written, and stands still for as long as that is looked at. Default of
   * `timeoutMs`: 120 000.
   * @throws NotFoundError, ConfigError, DiffError, StateError, StateDirError, GuestError, TimeoutError
   */
  diff(o?: VmDiffOptions): Promise<CheckpointDiff>;
  /** The last bytes of a log. Default 64 KiB. */
  logs(o?: { kind?: LogKind; tailBytes?: number }): Promise<string>;
  /** Empties both logs; what comes afterwards is kept. */
  clearLogs(): Promise<void>;
  /** A log from its start, then as it grows, until the signal ends it or the VM is gone. */
  followLogs(o?: { kind?: LogKind; signal?: AbortSignal }): AsyncIterable<Buffer>;
  /**
   * The serial console, both ways. One process at a time.
   * @throws HostError ERR_HOST_SOCKET where another process has it.
   */
  console(o?: WaitOptions): Promise<Duplex>;
  /** Path of the second QMP server, for a hand-driven session. One client at a time. */
  readonly monitorPath: string;
  /**
   * Ephemeral: kills the VM and removes all of it. Persistent: lets go of it; it runs on.
   * Idempotent; goes on past errors.
   */
  close(): Promise<void>;
}

/** What the `Vm` class offers besides its instances. */
export interface VmStatics {
  /**
   * Creates a VM, starts it and waits until its agent answers.
   * @throws ConfigError, HostError, ImageError, NotFoundError, StateDirError, LaunchError,
   *   VmDiedError, GuestPanicError, TimeoutError; whatever was taken has been released then.
   */
  create(options?: VmCreateOptions): Promise<VmInstance>;
  /**
   * A new VM that goes on from where a template stands: its memory is the template's, copied when it is
   * written to, its disk a new overlay. It is a machine of its own (host name, ids, random numbers,
   * clock) before anything that was started in the template goes on.
   * @throws NotFoundError, TemplateError, ConfigError, HostError, LaunchError, VmDiedError, GuestError,
   *   TimeoutError; nothing is left of it then
   */
  fromTemplate(template: string, options?: VmCloneOptions): Promise<VmInstance>;
  /**
   * Takes up a VM by id, name, or unique prefix of an id; running or not.
   * @throws NotFoundError
   */
  connect(idOrName: string, o?: StateOptions & WaitOptions): Promise<VmInstance>;
  /** All VMs, oldest first. Reaps ephemeral VMs of dead owners on its way. */
  list(o?: StateOptions): Promise<VmInfo[]>;
  /** One VM with everything there is to say. @throws NotFoundError */
  inspect(idOrName: string, o?: StateOptions): Promise<VmInfo>;
  /** SIGKILL; true where it ran. An ephemeral VM is removed as well. @throws NotFoundError */
  kill(idOrName: string, o?: StateOptions & KillOptions): Promise<boolean>;
  /** Takes away what dead processes left behind. */
  gc(o?: StateOptions & WaitOptions): Promise<Reaped[]>;
}
