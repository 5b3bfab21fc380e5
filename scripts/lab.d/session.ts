/** One run of a lab: boots it, passes the job's output on, and tells how it ended. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { labArgv, type LabMachine } from './machine.ts';

/** The lab's userspace answers within seconds; this is for a machine that does much else. */
const BOOT_MS = 180_000;
/** From the job's end to QEMU's: sync and power-off. */
const POWER_OFF_MS = 30_000;
/**
 * Under TCG the lab's vCPU and QEMU's timers write `interrupt_request` without a lock between them, when
 * the lab runs a VM of its own (`helper_vmrun`, `do_vmexit`): an interrupt's request gets lost, it stays
 * pending in the APIC, and an idle kernel that waits for its one timer sleeps for ever. The next
 * interrupt of any kind brings the lost one with it, so the lab gets one every so often.
 */
const HEARTBEAT_MS = 250;
/** What is shown of the console when a lab fails. */
const CONSOLE_TAIL_LINES = 60;

/** How a lab ended. Only `exit` carries the job's own exit code. */
export type LabEnd =
  | { kind: 'exit'; code: number; bootMs: number; jobMs: number }
  | { kind: 'not-booted' | 'panic' | 'died' | 'deadline'; message: string };

/** Runs the job that lies in `machine.jobDir`, for `timeoutMs` at most after the lab has booted. */
export async function runLab(
  machine: LabMachine,
  o: { timeoutMs: number; signal: AbortSignal },
): Promise<LabEnd> {
  await mkdir(machine.socketDir, { recursive: true });
  const control = new ControlPort();
  const servers = [
    await listen(join(machine.socketDir, 'stdout'), (socket) =>
      socket.pipe(process.stdout, { end: false }),
    ),
    await listen(join(machine.socketDir, 'stderr'), (socket) =>
      socket.pipe(process.stderr, { end: false }),
    ),
    await listen(join(machine.socketDir, 'control'), (socket) => control.attach(socket)),
  ];
  const started = Date.now();
  const [command, ...args] = labArgv(machine);
  // setpriv has QEMU killed when this process dies.
  const qemu = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command ?? '', ...args], {
    stdio: ['ignore', 'inherit', 'pipe'],
  });
  let stderr = '';
  qemu.stderr.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4_000)));
  const gone = new Promise<void>((resolve) => {
    qemu.once('exit', () => resolve());
    qemu.once('error', (error) => {
      stderr += error.message;
      resolve();
    });
  });
  const abort = (): void => void qemu.kill('SIGKILL');
  o.signal.addEventListener('abort', abort, { once: true });
  try {
    if ((await firstOf([control.ready, gone], BOOT_MS)) !== 0) {
      return await failure(
        'not-booted',
        machine,
        `no sign of life within ${BOOT_MS / 1000} s`,
        stderr,
      );
    }
    const bootMs = Date.now() - started;
    // The lab ends the job at its timeout; this is for a lab that has stopped.
    const which = await firstOf([control.exitCode, gone], o.timeoutMs + 60_000);
    const jobMs = Date.now() - started - bootMs;
    const code = control.code;
    if (code !== undefined) {
      await firstOf([gone], POWER_OFF_MS);
      return { kind: 'exit', code, bootMs, jobMs };
    }
    return which === undefined
      ? await failure('deadline', machine, 'the lab did not end its job at the timeout', stderr)
      : await failure('died', machine, 'the lab ended in the middle of its job', stderr);
  } finally {
    o.signal.removeEventListener('abort', abort);
    qemu.kill('SIGKILL');
    await gone;
    for (const server of servers) server.close();
    o.signal.throwIfAborted();
  }
}

/** An interactive lab on this terminal. */
export async function shellInLab(machine: LabMachine, signal: AbortSignal): Promise<number> {
  await mkdir(machine.socketDir, { recursive: true });
  const control = new ControlPort();
  const server = await listen(join(machine.socketDir, 'control'), (socket) =>
    control.attach(socket),
  );
  const [command, ...args] = labArgv(machine);
  const qemu = spawn(command ?? '', args, { stdio: 'inherit' });
  const abort = (): void => void qemu.kill('SIGKILL');
  signal.addEventListener('abort', abort, { once: true });
  const [code] = (await once(qemu, 'exit')) as [number | null];
  server.close();
  return code ?? 1;
}

/** Reads `ready` and `exit N` from the lab, and keeps its interrupts going. */
class ControlPort {
  code: number | undefined;
  readonly ready: Promise<void>;
  readonly exitCode: Promise<void>;
  #onReady: () => void = () => undefined;
  #onExit: () => void = () => undefined;
  #text = '';

  constructor() {
    this.ready = new Promise((resolve) => (this.#onReady = resolve));
    this.exitCode = new Promise((resolve) => (this.#onExit = resolve));
  }

  attach(socket: Socket): void {
    const heartbeat = setInterval(() => socket.write('\n'), HEARTBEAT_MS);
    socket.once('close', () => clearInterval(heartbeat));
    socket.on('data', (chunk: Buffer) => {
      this.#text = (this.#text + chunk.toString()).slice(-1_000);
      if (/^ready$/m.test(this.#text)) this.#onReady();
      const exit = /^exit (\d+)$/m.exec(this.#text);
      if (exit === null) return;
      this.code = Number(exit[1]);
      this.#onExit();
    });
  }
}

async function listen(path: string, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // QEMU was killed
    onConnection(socket);
  });
  server.listen(path);
  await once(server, 'listening');
  return server;
}

/** Index of the promise that settles first, undefined after `timeoutMs`. */
async function firstOf(promises: Promise<void>[], timeoutMs: number): Promise<number | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  try {
    return await Promise.race([
      timeout,
      ...promises.map((promise, index) => promise.then(() => index)),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

async function failure(
  kind: 'not-booted' | 'died' | 'deadline',
  machine: LabMachine,
  what: string,
  stderr: string,
): Promise<LabEnd> {
  const console = await readFile(machine.consolePath, 'utf8').catch(() => '');
  const panicked = /Kernel panic - not syncing: (.*)/.exec(console);
  const tail = console.trim().split('\n').slice(-CONSOLE_TAIL_LINES).join('\n');
  return {
    kind: panicked !== null && kind !== 'deadline' ? 'panic' : kind,
    message: [
      panicked === null ? what : `the lab's kernel panicked: ${panicked[1] ?? ''}`,
      ...(stderr.trim() === '' ? [] : [`QEMU said: ${stderr.trim()}`]),
      ...(tail === '' ? [] : ['The end of its console:', tail]),
    ].join('\n'),
  };
}
