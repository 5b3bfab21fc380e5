import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildCmdline } from '../../firmware/cmdline.ts';
import { machineFacts } from '../../firmware/machine.ts';
import type { AgentFiles } from '../../guest-agent/bundle.ts';
import { VIRTIO_PORT_PREFIX, VSOCK_PORT } from '../../guest-agent/protocol.ts';
import { LaunchError, TimeoutError } from '../errors.ts';
import { openChannel, type ChannelTarget } from '../guest/index.ts';
import type { BootFiles, Image, ImageStore } from '../image/index.ts';
import { hostTscKhz, type Accel, type MachineType } from '../vm/index.ts';

/** ms that a bare VM may take to come up. */
const BARE_TIMEOUT_MS = 120_000;

/** What a bare VM is made of; the same as the VM that it is compared with. */
export interface BareVmOptions {
  store: ImageStore;
  image: Image;
  machine: MachineType;
  accel: Accel;
  memoryMib: number;
  channel: 'vsock' | 'virtio-serial';
  /** What the image's init starts in the agent's place, as root. */
  program: AgentFiles;
  qemuPath: string;
  signal: AbortSignal;
}

type BareProcess = ReturnType<typeof spawnBare>;

/**
 * A VM as somebody would start it by hand: QEMU's own defaults where they do no harm, the image's
 * kernel, initramfs and disk, one channel; no agent, no record, no overlay file (QEMU's `snapshot=on`).
 * The floor below a real VM's figures; not to be used for anything else.
 */
export class BareVm implements AsyncDisposable {
  /** `performance.now()` at the spawn: making the initramfs does not count. */
  readonly spawnedAt: number;
  readonly #dir: string;
  readonly #process: BareProcess;
  readonly target: ChannelTarget;
  #socket: Socket | undefined;

  private constructor(at: number, dir: string, child: BareProcess, target: ChannelTarget) {
    this.spawnedAt = at;
    this.#dir = dir;
    this.#process = child;
    this.target = target;
  }

  /** Starts QEMU; waits for nothing. */
  static async start(options: BareVmOptions): Promise<BareVm> {
    const { program: agent, signal } = options;
    const boot = await options.store.bootFiles(options.image, { agent, signal });
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-bare-'));
    const target: ChannelTarget =
      options.channel === 'vsock'
        ? { kind: 'vsock', cid: randomInt(0x1000, 0x7fff_ffff), port: VSOCK_PORT }
        : { kind: 'unix', path: join(dir, 'port.sock') };
    const argv = bareArgv(options, boot, target, await hostTscKhz());
    return new BareVm(performance.now(), dir, spawnBare(options, argv), target);
  }

  /**
   * Connects the channel as soon as there is one, past the byte with which the guest's side of a
   * virtio-serial port waits for us.
   * @throws LaunchError where QEMU ends first, TimeoutError where nobody listens in time
   */
  async connect(): Promise<Socket> {
    const over = AbortSignal.timeout(BARE_TIMEOUT_MS);
    const dead = this.#process.then((result) => {
      const { exitCode, stderr } = result;
      throw new LaunchError('the bare VM ended', { exitCode, argv: [], stderr });
    });
    try {
      this.#socket = await Promise.race([openChannel(this.target, over), dead]);
      if (this.target.kind === 'unix') {
        await Promise.race([once(this.#socket, 'readable', { signal: over }), dead]);
        this.#socket.read(1);
      }
      return this.#socket;
    } catch (error) {
      if (over.aborted) throw new TimeoutError('channel of the bare VM', BARE_TIMEOUT_MS);
      throw error;
    } finally {
      dead.catch(() => undefined);
    }
  }

  /** Kills QEMU and removes its directory. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    this.#process.kill('SIGKILL');
    await this.#process;
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** Not by the product's launcher: what that does on top is what the floor is there to show. */
function spawnBare({ qemuPath, signal }: BareVmOptions, argv: readonly string[]) {
  return execa('setpriv', ['--pdeathsig', 'KILL', qemuPath, ...argv], {
    stdin: 'ignore',
    stdout: 'ignore',
    reject: false,
    killSignal: 'SIGKILL',
    cancelSignal: signal,
  });
}

function bareArgv(
  options: BareVmOptions,
  boot: BootFiles,
  target: ChannelTarget,
  tscKhz: number | undefined,
): string[] {
  const { machine, accel, image, memoryMib, channel } = options;
  const { machineArg, virtioSuffix } = machineFacts(machine);
  const cmdline = buildCmdline({ machine, accel, hostname: 'bare', channel, tscKhz });
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', machineArg, '-accel', accel, '-cpu', accel === 'kvm' ? 'host' : 'max'],
    ...['-m', String(memoryMib), '-kernel', boot.kernelPath, '-initrd', boot.initramfsPath],
    ...['-append', cmdline, '-serial', 'null'],
    ...['-drive', `file=${image.rootfsPath},format=qcow2,if=none,id=disk,snapshot=on`],
    ...['-device', `virtio-blk-${virtioSuffix},drive=disk`],
    ...(target.kind === 'vsock'
      ? ['-device', `vhost-vsock-${virtioSuffix},guest-cid=${target.cid}`]
      : [
          ...['-chardev', `socket,id=port,path=${target.path},server=on,wait=off`],
          ...['-device', `virtio-serial-${virtioSuffix}`],
          ...['-device', `virtserialport,chardev=port,name=${VIRTIO_PORT_PREFIX}.0`],
        ]),
  ];
}
