/**
 * Every error that qmp-agent throws on purpose.
 *
 * ```
 * QmpAgentError                    code, hint, vmId, cause
 * ├─ ConfigError                   ERR_CONFIG             a field, its value, and what would be right
 * ├─ HostError                     ERR_HOST_…             the host lacks something, or something on it is in the way
 * ├─ DiskQuotaError                ERR_DISK_QUOTA         a VM's disk has taken all that it may on the host
 * ├─ StateError                    ERR_STATE              actual and required runstate
 * ├─ StateDirError                 ERR_STATE_DIR          state directory read-only, corrupt or from the future
 * ├─ NotFoundError                 ERR_NOT_FOUND          no such VM / image / template / exec (or an ambiguous prefix)
 * ├─ TimeoutError                  ERR_TIMEOUT            operation, timeoutMs
 * ├─ LaunchError                   ERR_LAUNCH             exit code, argv, last lines of stderr
 * ├─ VmDiedError                   ERR_VM_DIED            QEMU ended while something waited for it
 * │  └─ GuestPanicError            ERR_GUEST_PANIC        the kernel's panic text
 * ├─ ImageError                    ERR_IMAGE_…            missing, corrupt, failed build step
 * ├─ TemplateError                 ERR_TEMPLATE_…         corrupt, in use, of another QEMU or processor
 * ├─ SuspendError                  ERR_SUSPEND_…          a suspended VM's memory: corrupt, of another QEMU or processor
 * ├─ DiffError                     ERR_DIFF_…             two disks that have nothing in common, or none that can be read
 * ├─ QmpError
 * │  ├─ QmpConnectError            ERR_QMP_CONNECT
 * │  ├─ QmpCommandError            ERR_QMP_COMMAND        class and description from QEMU
 * │  ├─ QmpInterruptedError        ERR_QMP_INTERRUPTED    connection lost under a pending call
 * │  ├─ QmpJobError                ERR_QMP_JOB            a QEMU job concluded with an error
 * │  └─ QmpProtocolError           ERR_QMP_PROTOCOL       the peer broke the protocol
 * ├─ GuestError                    ERR_GUEST_…
 * │  ├─ GuestConnectError          ERR_GUEST_CONNECT      nobody answers, or not an agent
 * │  ├─ GuestVersionError          ERR_GUEST_VERSION      host and agent speak different protocols
 * │  ├─ GuestProtocolError         ERR_GUEST_PROTOCOL     the agent broke the protocol or a limit
 * │  ├─ GuestDisconnectedError     ERR_GUEST_DISCONNECTED the channel closed under a pending call
 * │  ├─ VmRestoredError            ERR_VM_RESTORED        the VM went back to a snapshot under a pending call
 * │  └─ GuestRequestError          ERR_GUEST_REQUEST      the agent refused (its own code and text)
 * ├─ PoolError
 * │  ├─ PoolClosedError            ERR_POOL_CLOSED        the pool is draining or closed
 * │  ├─ PoolTimeoutError           ERR_POOL_TIMEOUT       no VM came free in time; cause: why none could be made
 * │  ├─ PoolFullError              ERR_POOL_FULL          too many wait already
 * │  ├─ PoolMemoryError            ERR_POOL_MEMORY        more promised than the host has
 * │  ├─ PoolLeaseError             ERR_POOL_LEASE         the VM was given back
 * │  └─ PoolUncleanError           ERR_POOL_UNCLEAN       a used VM cannot be made as new
 * ├─ NetworkError
 * │  ├─ NetworkSetupError          ERR_NETWORK_SETUP      the host's network is not set up for VMs, or takes no more
 * │  ├─ NetworkInterfaceError      ERR_NETWORK_INTERFACE  ip or the kernel refused; ip's own words
 * │  ├─ NetworkPolicyError         ERR_NETWORK_POLICY     a field of a VM's network policy, its value, and what would be right
 * │  └─ NetworkRulesError          ERR_NETWORK_RULES      nft or the kernel refused; reason and nft's own words
 * └─ CommandExitError              ERR_COMMAND_EXIT       a command's non-zero exit; carries the result
 * ```
 *
 * `code` is stable across releases; `message` is for people. `hint` says what to do about it.
 */

/** What any {@link QmpAgentError} may carry besides its message. */
export interface ErrorDetails {
  /** What the user can do about it, as one imperative sentence. */
  hint?: string | undefined;
  /** The VM the error belongs to. */
  vmId?: string | undefined;
  /** The underlying error. */
  cause?: unknown;
}

/** Base of the tree; never thrown itself. */
export abstract class QmpAgentError extends Error {
  /** Stable, machine-readable, `ERR_…`. */
  abstract readonly code: string;
  /** What the user can do about it. */
  readonly hint: string | undefined;
  /** The VM the error belongs to, where there is one. */
  vmId: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.hint = details.hint;
    this.vmId = details.vmId;
  }
}

/** A value from a user, a file or the environment that cannot be used. */
export class ConfigError extends QmpAgentError {
  override readonly code = 'ERR_CONFIG';
  /** The field's path, e.g. `vm.memoryMib` or `--memory`. */
  readonly field: string;
  /** What was given. Callers leave it out where it may be secret. */
  readonly value: unknown;

  constructor(
    message: string,
    details: ErrorDetails & { field: string; value?: unknown; hint: string },
  ) {
    super(message, details);
    this.field = details.field;
    this.value = details.value;
  }
}

/** What about the host is in the way. */
export type HostErrorCode =
  | 'ERR_HOST_KVM' // KVM asked for, cannot work
  | 'ERR_HOST_VSOCK' // vhost-vsock asked for, cannot work; or the CID is taken
  | 'ERR_HOST_QEMU' // QEMU missing or too old
  | 'ERR_HOST_TOOL' // another program is missing
  | 'ERR_HOST_DISK_FULL'
  | 'ERR_HOST_PERMISSION'
  | 'ERR_HOST_DNS' // no name server to forward to
  | 'ERR_HOST_SOCKET'; // path too long, or path or address already in use

/** The host lacks something, or something on it is in the way. */
export class HostError extends QmpAgentError {
  override readonly code: HostErrorCode;
  constructor(code: HostErrorCode, message: string, details: ErrorDetails & { hint: string }) {
    super(message, details);
    this.code = code;
  }
}

/** A VM's disk has taken all that it may on the host, or what is asked for would take more. */
export class DiskQuotaError extends QmpAgentError {
  override readonly code = 'ERR_DISK_QUOTA';
  readonly quotaBytes: number;
  constructor(
    message: string,
    details: ErrorDetails & { vmId: string; quotaBytes: number; hint: string },
  ) {
    super(message, details);
    this.quotaBytes = details.quotaBytes;
  }
}

/** The operation needs the VM (or another object) in a state that it is not in. */
export class StateError extends QmpAgentError {
  override readonly code = 'ERR_STATE';
  readonly actual: string;
  readonly required: readonly string[];
  constructor(
    message: string,
    details: ErrorDetails & { actual: string; required: readonly string[] },
  ) {
    super(message, details);
    this.actual = details.actual;
    this.required = details.required;
  }
}

/** The state directory cannot be used: read-only, corrupt, or written by a later version. */
export class StateDirError extends QmpAgentError {
  override readonly code = 'ERR_STATE_DIR';
  readonly path: string;
  constructor(message: string, details: ErrorDetails & { path: string; hint: string }) {
    super(message, details);
    this.path = details.path;
  }
}

/** No such VM, image or exec; or a prefix that fits several. */
export class NotFoundError extends QmpAgentError {
  override readonly code = 'ERR_NOT_FOUND';
  /** `vm`, `image`, `exec`, … */
  readonly kind: string;
  /** What was asked for. */
  readonly query: string;
  /** Where a prefix fits several: these. */
  readonly candidates: readonly string[];
  constructor(
    message: string,
    details: ErrorDetails & { kind: string; query: string; candidates?: readonly string[] },
  ) {
    super(message, details);
    this.kind = details.kind;
    this.query = details.query;
    this.candidates = details.candidates ?? [];
  }
}

/** An operation did not end in its time. */
export class TimeoutError extends QmpAgentError {
  override readonly code = 'ERR_TIMEOUT';
  /** What was waited for, e.g. `guest agent of vm 1f3a`. */
  readonly operation: string;
  readonly timeoutMs: number;
  constructor(operation: string, timeoutMs: number, details: ErrorDetails = {}) {
    super(`${operation}: no result within ${Math.round(timeoutMs)} ms`, details);
    this.operation = operation;
    this.timeoutMs = timeoutMs;
  }
}

/** QEMU did not start, or ended before it was ready. */
export class LaunchError extends QmpAgentError {
  override readonly code = 'ERR_LAUNCH';
  /** QEMU's exit code; undefined where a signal ended it or it never ran. */
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  /** The whole command line. */
  readonly argv: readonly string[];
  /** The last lines QEMU wrote to stderr. */
  readonly stderr: string;
  constructor(
    message: string,
    details: ErrorDetails & {
      exitCode?: number | undefined;
      signal?: string | undefined;
      argv: readonly string[];
      stderr: string;
    },
  ) {
    super(message, details);
    this.exitCode = details.exitCode;
    this.signal = details.signal;
    this.argv = details.argv;
    this.stderr = details.stderr;
  }
}

/** QEMU ended while something waited for the VM. */
export class VmDiedError extends QmpAgentError {
  override readonly code: string = 'ERR_VM_DIED';
  /** The last lines of QEMU's stderr. */
  readonly stderr: string;
  /** The last lines of the guest's serial console. */
  readonly console: string;
  constructor(message: string, details: ErrorDetails & { stderr?: string; console?: string } = {}) {
    super(message, details);
    this.stderr = details.stderr ?? '';
    this.console = details.console ?? '';
  }
}

/** The guest's kernel panicked; {@link panic} is its own text. */
export class GuestPanicError extends VmDiedError {
  override readonly code = 'ERR_GUEST_PANIC';
  /** From `Kernel panic - not syncing: …` on. */
  readonly panic: string;
  constructor(
    message: string,
    details: ErrorDetails & { stderr?: string; console?: string; panic: string },
  ) {
    super(message, details);
    this.panic = details.panic;
  }
}

/** What is wrong with an image. */
export type ImageErrorCode =
  | 'ERR_IMAGE_CORRUPT' // files missing, or not those of the manifest
  | 'ERR_IMAGE_BUILD' // a build step failed
  | 'ERR_IMAGE_IMPORT' // the archive is not what it should be
  | 'ERR_IMAGE_IN_USE'; // a VM still stands on it

/** An image cannot be used, built, imported or removed. */
export class ImageError extends QmpAgentError {
  override readonly code: ImageErrorCode;
  /** The build step that failed. */
  readonly step: string | undefined;
  /** The file that holds the step's whole output. */
  readonly logPath: string | undefined;
  constructor(
    code: ImageErrorCode,
    message: string,
    details: ErrorDetails & { step?: string; logPath?: string } = {},
  ) {
    super(message, details);
    this.code = code;
    this.step = details.step;
    this.logPath = details.logPath;
  }
}

/** What is wrong with a template. */
export type TemplateErrorCode =
  | 'ERR_TEMPLATE_CORRUPT' // files missing, or not those of the manifest
  | 'ERR_TEMPLATE_IN_USE' // a clone still stands on it
  | 'ERR_TEMPLATE_MISMATCH'; // made by another QEMU, or for another processor

/** A template cannot be used or removed. */
export class TemplateError extends QmpAgentError {
  override readonly code: TemplateErrorCode;
  constructor(code: TemplateErrorCode, message: string, details: ErrorDetails & { hint: string }) {
    super(message, details);
    this.code = code;
  }
}

/** What is wrong with a suspended VM's saved memory. */
export type SuspendErrorCode =
  | 'ERR_SUSPEND_CORRUPT' // files missing, or not what was saved
  | 'ERR_SUSPEND_MISMATCH'; // saved by another QEMU, or on another processor

/** A suspended VM cannot go on from where it was. */
export class SuspendError extends QmpAgentError {
  override readonly code: SuspendErrorCode;
  constructor(code: SuspendErrorCode, message: string, details: ErrorDetails & { hint: string }) {
    super(message, details);
    this.code = code;
  }
}

/** Why two disks cannot be compared. */
export type DiffErrorCode =
  | 'ERR_DIFF_UNRELATED' // they stand on different images
  | 'ERR_DIFF_FILE_SYSTEM'; // no ext4 that can be read: another kind, encrypted, damaged

/** Two disks cannot be compared. */
export class DiffError extends QmpAgentError {
  override readonly code: DiffErrorCode;
  constructor(code: DiffErrorCode, message: string, details: ErrorDetails & { hint: string }) {
    super(message, details);
    this.code = code;
  }
}

/** Any failure of a QMP session. */
export abstract class QmpError extends QmpAgentError {}

/** The socket cannot be connected, or no greeting came. */
export class QmpConnectError extends QmpError {
  override readonly code = 'ERR_QMP_CONNECT';
}

/** QEMU answered a command with an error. */
export class QmpCommandError extends QmpError {
  override readonly code = 'ERR_QMP_COMMAND';
  /** QEMU's error class, e.g. `GenericError`, `CommandNotFound`. */
  readonly errorClass: string;
  /** QEMU's own words. */
  readonly desc: string;
  readonly command: string;
  constructor(command: string, error: { class: string; desc: string }, details: ErrorDetails = {}) {
    super(`QMP ${command}: ${error.desc}`, details);
    this.command = command;
    this.errorClass = error.class;
    this.desc = error.desc;
  }
}

/** The connection ended while a call or an event iterator was pending. */
export class QmpInterruptedError extends QmpError {
  override readonly code = 'ERR_QMP_INTERRUPTED';
}

/** A QEMU job concluded with an error. */
export class QmpJobError extends QmpError {
  override readonly code = 'ERR_QMP_JOB';
  readonly jobId: string;
  readonly jobType: string;
  constructor(message: string, details: ErrorDetails & { jobId: string; jobType: string }) {
    super(message, details);
    this.jobId = details.jobId;
    this.jobType = details.jobType;
  }
}

/** The peer sent something that is not QMP, or more than a limit allows. */
export class QmpProtocolError extends QmpError {
  override readonly code = 'ERR_QMP_PROTOCOL';
}

/** Any failure of the conversation with the guest agent. */
export abstract class GuestError extends QmpAgentError {}

/** Nobody answers on the channel, or what answers is not the agent. */
export class GuestConnectError extends GuestError {
  override readonly code = 'ERR_GUEST_CONNECT';
}

/** Host and agent speak different versions of the protocol. */
export class GuestVersionError extends GuestError {
  override readonly code = 'ERR_GUEST_VERSION';
  readonly host: number;
  readonly guest: number;
  constructor(message: string, details: ErrorDetails & { host: number; guest: number }) {
    super(message, details);
    this.host = details.host;
    this.guest = details.guest;
  }
}

/** The agent broke the protocol, or went past one of the host's limits. */
export class GuestProtocolError extends GuestError {
  override readonly code = 'ERR_GUEST_PROTOCOL';
}

/** The channel closed while a call was pending. */
export class GuestDisconnectedError extends GuestError {
  override readonly code = 'ERR_GUEST_DISCONNECTED';
}

/** The VM was put back to a snapshot while a call was pending: what the call was about is no more. */
export class VmRestoredError extends GuestError {
  override readonly code = 'ERR_VM_RESTORED';
}

/** The agent refused a request; {@link guestCode} is its reason. */
export class GuestRequestError extends GuestError {
  override readonly code = 'ERR_GUEST_REQUEST';
  /** `ENOENT` (no such program or directory), `EACCES`, `EUSER` (no such user), `ENOEXEC_ID`, `EBUSY`, `EINVAL`, … */
  readonly guestCode: string;
  constructor(message: string, details: ErrorDetails & { guestCode: string }) {
    super(message, details);
    this.guestCode = details.guestCode;
  }
}

/** Any failure of a pool of VMs. */
export abstract class PoolError extends QmpAgentError {
  /** The pool's name. */
  readonly pool: string;
  constructor(message: string, details: ErrorDetails & { pool: string }) {
    super(message, details);
    this.pool = details.pool;
  }
}

/** The pool is draining or closed: it gives no more VMs. */
export class PoolClosedError extends PoolError {
  override readonly code = 'ERR_POOL_CLOSED';
}

/** No VM came free in time. Where the pool cannot make VMs, the cause is the last reason why. */
export class PoolTimeoutError extends PoolError {
  override readonly code = 'ERR_POOL_TIMEOUT';
  /** `acquire` or `drain`. */
  readonly operation: string;
  readonly timeoutMs: number;
  constructor(
    message: string,
    details: ErrorDetails & { pool: string; operation: string; timeoutMs: number },
  ) {
    super(message, details);
    this.operation = details.operation;
    this.timeoutMs = details.timeoutMs;
  }
}

/** As many wait for a VM as may. */
export class PoolFullError extends PoolError {
  override readonly code = 'ERR_POOL_FULL';
  /** How many wait. */
  readonly waiting: number;
  constructor(message: string, details: ErrorDetails & { pool: string; waiting: number }) {
    super(message, details);
    this.waiting = details.waiting;
  }
}

/** The pool's VMs could use more memory than the host has left. */
export class PoolMemoryError extends PoolError {
  override readonly code = 'ERR_POOL_MEMORY';
  /** The option that asks for too much. */
  readonly field: string;
  readonly value: unknown;
  /** What all of the pool's VMs could use at most. */
  readonly neededBytes: number;
  /** What the host has and no other pool of this process was promised. */
  readonly availableBytes: number;
  constructor(
    message: string,
    details: ErrorDetails & {
      pool: string;
      field: string;
      value: unknown;
      neededBytes: number;
      availableBytes: number;
      hint: string;
    },
  ) {
    super(message, details);
    this.field = details.field;
    this.value = details.value;
    this.neededBytes = details.neededBytes;
    this.availableBytes = details.availableBytes;
  }
}

/** The VM was given back to its pool: it may be somebody else's by now. */
export class PoolLeaseError extends PoolError {
  override readonly code = 'ERR_POOL_LEASE';
}

/** A used VM cannot be made as new, so it is destroyed. In events only: nobody waits for that. */
export class PoolUncleanError extends PoolError {
  override readonly code = 'ERR_POOL_UNCLEAN';
}

/** Any failure of a VM's network. */
export abstract class NetworkError extends QmpAgentError {}

/** The host's network is not set up for VMs, or cannot take one more. */
export class NetworkSetupError extends NetworkError {
  override readonly code = 'ERR_NETWORK_SETUP';
  constructor(message: string, details: ErrorDetails & { hint: string }) {
    super(message, details);
  }
}

/** `ip`, or the kernel, refused to change or show interfaces. Commands before the one that failed have been done. */
export class NetworkInterfaceError extends NetworkError {
  override readonly code = 'ERR_NETWORK_INTERFACE';
  /** What `ip` wrote to stderr, e.g. `RTNETLINK answers: File exists`. */
  readonly stderr: string;
  constructor(message: string, details: ErrorDetails & { stderr: string; hint: string }) {
    super(message, details);
    this.stderr = details.stderr;
  }
}

/** A VM's network policy cannot be made into rules. */
export class NetworkPolicyError extends NetworkError {
  override readonly code = 'ERR_NETWORK_POLICY';
  /** The field's path, e.g. `policy.rules[2].ports[0]`. */
  readonly field: string;
  readonly value: unknown;
  constructor(
    message: string,
    details: ErrorDetails & { field: string; value: unknown; hint: string },
  ) {
    super(message, details);
    this.field = details.field;
    this.value = details.value;
  }
}

/** Why rules could not be changed or read. */
export type NetworkRulesReason =
  | 'missing' // the table, or something in it that the change is about, is not there
  | 'exists' // something of the same name is there already, and is another
  | 'in-use' // something still refers to what should go
  | 'full' // a set has no room
  | 'schema' // the tables were made by another version
  | 'refused'; // all else

/** nft, or the kernel, refused to change or read rules. Nothing was changed. */
export class NetworkRulesError extends NetworkError {
  override readonly code = 'ERR_NETWORK_RULES';
  readonly reason: NetworkRulesReason;
  /** The last lines that nft wrote to stderr. */
  readonly stderr: string;
  constructor(
    message: string,
    details: ErrorDetails & { reason: NetworkRulesReason; stderr: string; hint: string },
  ) {
    super(message, details);
    this.reason = details.reason;
    this.stderr = details.stderr;
  }
}

/** The part of a command's result that {@link CommandExitError} shows in its message. */
interface ExitSummary {
  exitCode: number | undefined;
  signal: string | undefined;
  stderr: string | Uint8Array;
  timedOut: boolean;
  isCanceled: boolean;
}

/**
 * A command ended otherwise than with exit code 0. Carries the whole result, and its members as
 * E2B's error of the same name does.
 */
export class CommandExitError<R extends ExitSummary = ExitSummary> extends QmpAgentError {
  override readonly code = 'ERR_COMMAND_EXIT';
  readonly result: R;
  constructor(result: R, details: ErrorDetails = {}) {
    super(describeExit(result), details);
    this.result = result;
  }
  get exitCode(): number | undefined {
    return this.result.exitCode;
  }
  get stderr(): R['stderr'] {
    return this.result.stderr;
  }
}

function describeExit(result: ExitSummary): string {
  if (result.timedOut) return 'command timed out and was killed';
  if (result.isCanceled) return 'command was canceled and killed';
  if (result.signal !== undefined) return `command was ended by ${result.signal}`;
  return `command exited with code ${result.exitCode}`;
}
