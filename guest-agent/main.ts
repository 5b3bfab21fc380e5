/**
 * The agent in the guest. Started by the init, restarted by it when it dies.
 *
 * `--successor` says that there was one before it. `--listen-unix PATH` makes it listen on a unix socket
 * instead of the guest's channels: it is there for tests on the host and for nothing else.
 */
import {
  complain,
  hasVsock,
  MAX_PORTS,
  serveUnix,
  serveVirtioPort,
  serveVsock,
  virtioPorts,
  type Serve,
} from './channels.ts';
import { rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { setFlagsFromString, startupSnapshot } from 'node:v8';
import { PortStream } from './port-stream.ts';
import { WIRE_BREAK } from './preamble.ts';
import { SessionServer, type ServeHttp2 } from './session.ts';
import { SocketDuplex } from './socket-duplex.ts';

function main(): void {
  // Nothing is collected merely because nobody asks for anything: an idle clone would make 5 MiB its own that it
  // shares, and an emulated one translate the collector. The reducer is there already: it waits for some three weeks.
  setFlagsFromString('--gc-memory-reducer-start-delay-ms=2000000000');
  // Each virtio-serial port that waits for its host takes a thread. Before the pool's first use.
  process.env['UV_THREADPOOL_SIZE'] = String(4 + MAX_PORTS);
  process.title = 'qmp-agent';
  process.umask(0o022);
  process.on('uncaughtException', (error) => die(error));
  process.on('unhandledRejection', (error) => die(error));
  dropSnapshot();

  const at = process.argv.indexOf('--listen-unix');
  const path = at < 0 ? undefined : process.argv[at + 1];
  let http2: Promise<ServeHttp2> | undefined;
  const load = () => (http2 ??= loadServer(path === undefined));
  const sockets = new SessionServer(load, () => new SocketDuplex());
  const serveSocket: Serve = (socket) => sockets.serve(socket);
  if (path !== undefined) {
    serveUnix(path, serveSocket);
    return;
  }
  const ports = virtioPorts();
  const wires = new SessionServer(load, () => new PortStream());
  const servePort: Serve = (socket) => wires.serve(socket);
  // The host is not told when an agent dies on such a wire, so the next one tells it. The first one has nothing to
  // tell, and 20 KiB are some 40 ms of a clone under emulation.
  const isSuccessor = process.argv.includes('--successor');
  for (const port of ports)
    void serveVirtioPort(port, servePort, isSuccessor ? WIRE_BREAK : undefined);
  if (hasVsock()) serveVsock(serveSocket).catch((error: unknown) => complain('vsock', error));
  else if (ports.length === 0) die('neither a vsock device nor a virtio-serial port of ours');
}

/** Loaded when the first host is there: the answer to its preamble need not wait for it. */
async function loadServer(inGuest: boolean): Promise<ServeHttp2> {
  tuneV8();
  const [{ http2Server }, { Execs }, { processTrees, procTrees }] = await Promise.all([
    import('./server.ts'),
    ...execModules(),
  ]);
  const execs = new Execs(inGuest ? processTrees : procTrees);
  const serve = http2Server(execs);
  setImmediate(() => void execs.prepare().catch(() => undefined)); // the first exec says what is wrong
  return serve;
}

/** To be called before there is much to run. Flags: `node --v8-options`. */
function tuneV8(): void {
  // What it was compiled for once is wanted again in each copy: V8 throws away what some collections found unused.
  setFlagsFromString('--no-flush-bytecode');
  if (!isEmulated()) return;
  // An emulated processor translates all code before it runs. The interpreter's is the same for all functions, where
  // compilers make more of it: V8's baseline compiler cost each clone 20 % more blocks and 8 MiB, and made no
  // command faster. Its optimizing compiler is a lot of code itself, and is for who gives more than some fifty
  // commands (V8's own: 132 KiB of bytecode).
  setFlagsFromString('--no-sparkplug');
  setFlagsFromString('--interrupt-budget=1000000');
}

/** As QEMU calls its own processors (target/i386/cpu.c, `QEMU TCG CPU version …`). */
function isEmulated(): boolean {
  return cpus()[0]?.model.includes('TCG') === true;
}

/** The file is memory of the guest's, and tells the init that we have come up. */
function dropSnapshot(): void {
  const at = process.execArgv.indexOf('--snapshot-blob');
  const file = at < 0 ? undefined : process.execArgv[at + 1];
  if (file !== undefined) rmSync(file, { force: true });
}

/** What a server needs besides HTTP/2. */
function execModules() {
  return [import('./execs.ts'), import('./process-tree.ts')] as const;
}

/**
 * Under `node --build-snapshot`: leaves a heap in which all is loaded that a snapshot can hold, and `main`
 * to be called where it is read. HTTP/2 cannot be in it: Node 20's parser of HTTP has no way to be
 * written down. See `firmware/agent-snapshot.ts`.
 */
async function fillSnapshot(): Promise<void> {
  startupSnapshot.setDeserializeMainFunction(main);
  await Promise.all(execModules());
}

/** Not `process.exit`: that joins libuv's threads, and one may wait for a host that never comes. */
function die(error: unknown): void {
  complain('fatal', error instanceof Error ? (error.stack ?? error.message) : error);
  process.kill(process.pid, 'SIGKILL');
}

if (startupSnapshot.isBuildingSnapshot()) void fillSnapshot();
else main();
