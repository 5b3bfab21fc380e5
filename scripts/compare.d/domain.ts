/** A machine under libvirt: a driver of its own, one domain of type qemu, one internal snapshot. */
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { buildCmdline } from '../../firmware/cmdline.ts';
import { VIRTIO_PORT_PREFIX } from '../../guest-agent/protocol.ts';
import { GuestSession } from '../../src/guest/index.ts';
import type { BootFiles, Image } from '../../src/image/index.ts';
import { createOverlay } from '../../src/storage/index.ts';
import { TCG_CPU } from '../../src/vm/argv.ts';

const NAME = 'compared';
const SNAPSHOT = 'clean';
const BOOT_MS = 120_000;
/** Any call of virsh. */
const CALL_MS = 120_000;

/** No service of its own for logs, no other user, no security module, no cgroup. */
const QEMU_CONF = `user = "root"
group = "root"
stdio_handler = "file"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
`;

/** What the domain is made of: the same as the VM that it is compared with. */
export interface DomainOptions {
  readonly image: Image;
  readonly boot: BootFiles;
  readonly memoryMib: number;
  readonly qemuPath: string;
  readonly signal: AbortSignal;
}

/** See the head of this file. */
export class Domain implements AsyncDisposable {
  readonly #dir: string;
  readonly #virsh: Virsh;

  private constructor(dir: string, virsh: Virsh) {
    this.#dir = dir;
    this.#virsh = virsh;
  }

  /** Defines, starts, waits until the agent has run a command, and takes the snapshot. */
  static async start(o: DomainOptions): Promise<Domain> {
    const dir = await mkdtemp(join(tmpdir(), 'qmp-agent-compare-'));
    await mkdir(join(dir, 'etc'));
    await writeFile(join(dir, 'etc/qemu.conf'), QEMU_CONF);
    const domain = new Domain(dir, new Virsh(dir));
    try {
      const disk = join(dir, 'disk.qcow2');
      const port = join(dir, 'port.sock');
      await createOverlay({ path: disk, backing: o.image.rootfsPath, signal: o.signal });
      await writeFile(join(dir, 'domain.xml'), domainXml({ ...o, disk, port }));
      await domain.#virsh.call(`define ${join(dir, 'domain.xml')}`, o.signal);
      await domain.#virsh.call(`start ${NAME}`, o.signal);
      await firstCommand(port, o.signal);
      await domain.#virsh.call(`snapshot-create-as ${NAME} ${SNAPSHOT}`, o.signal);
      return domain;
    } catch (error) {
      await domain[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** ms that `snapshot-revert` takes, without the start of virsh itself. */
  async revert(signal: AbortSignal): Promise<number> {
    const called = performance.now();
    await this.#virsh.call(`snapshot-revert ${NAME} ${SNAPSHOT}`, signal);
    return performance.now() - called;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#virsh.call(`destroy ${NAME}`, AbortSignal.timeout(CALL_MS)).catch(() => undefined);
    await this.#virsh.end();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** libvirt's QEMU driver inside a virsh that takes commands by its stdin. */
class Virsh {
  readonly #process: ReturnType<typeof spawnVirsh>;
  #calls = 0;
  #stdout = '';
  #stderr = '';

  constructor(root: string) {
    this.#process = spawnVirsh(root);
    this.#process.stdout.on('data', (data: Buffer) => (this.#stdout += data.toString()));
    this.#process.stderr.on('data', (data: Buffer) => (this.#stderr += data.toString()));
  }

  /** @throws Error with what virsh says */
  async call(command: string, signal: AbortSignal): Promise<void> {
    this.#calls += 1;
    const mark = `call-${this.#calls}-is-over`;
    const over = AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]);
    this.#stderr = '';
    this.#process.stdin.write(`${command}\necho ${mark}\n`);
    while (!new RegExp(`^${mark}`, 'm').test(this.#stdout)) {
      if (this.#process.exitCode !== null) throw new Error(`virsh ended: ${this.#stderr}`);
      await once(this.#process.stdout, 'data', { signal: over });
    }
    this.#stdout = '';
    if (/^error:/m.test(this.#stderr)) throw new Error(`virsh ${command}: ${this.#stderr}`);
  }

  async end(): Promise<void> {
    this.#process.stdin.end('quit\n');
    await this.#process;
  }
}

function spawnVirsh(root: string) {
  const words = ['--quiet', '--connect', `qemu:///embed?root=${root}`];
  return execa('virsh', words, { stdin: 'pipe', buffer: false, reject: false });
}

/** Waits until the guest has booted and run something, as ours has. */
async function firstCommand(port: string, signal: AbortSignal): Promise<void> {
  await using session = await GuestSession.connect(
    { kind: 'unix', path: port },
    { vmId: NAME, timeoutMs: BOOT_MS, signal, booting: true },
  );
  const exec = await session.exec({ argv: ['true'] }, { signal });
  for await (const _piece of exec.output) continue;
  await exec.exit;
}

function domainXml(o: DomainOptions & { disk: string; port: string }): string {
  const cmdline = buildCmdline({
    ...{ machine: 'q35', accel: 'tcg', hostname: NAME, channel: 'virtio-serial' },
  });
  const [model = 'max', ...features] = TCG_CPU.split(',');
  const disabled = features.map((f) => `<feature policy='disable' name='${f.replace(/^-/, '')}'/>`);
  return `<domain type='qemu'>
  <name>${NAME}</name>
  <memory unit='MiB'>${o.memoryMib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>${o.boot.kernelPath}</kernel>
    <initrd>${o.boot.initramfsPath}</initrd>
    <cmdline>${cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='${model === 'max' ? 'maximum' : 'custom'}'>${disabled.join('')}</cpu>
  <devices>
    <emulator>${o.qemuPath}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='${o.disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='virtio-serial' index='0'/>
    <channel type='unix'>
      <source mode='bind' path='${o.port}'/>
      <target type='virtio' name='${VIRTIO_PORT_PREFIX}.0'/>
    </channel>
    <serial type='null'/>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}
