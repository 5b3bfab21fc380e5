/**
 * The agent in the guest. Started by the init, restarted by it when it dies.
 *
 * `--listen-unix PATH` makes it listen on a unix socket instead of the guest's channels. It is there
 * for tests on the host and for nothing else.
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
import { serveSession, type ServeHttp2 } from './session.ts';
import type { Execs } from './execs.ts';

function main(): void {
  // Each virtio-serial port that waits for its host takes a thread. Before the pool's first use.
  process.env['UV_THREADPOOL_SIZE'] = String(4 + MAX_PORTS);
  process.title = 'qmp-agent';
  process.umask(0o022);
  process.on('uncaughtException', (error) => die(error));
  process.on('unhandledRejection', (error) => die(error));

  let http2: Promise<ServeHttp2> | undefined;
  const serve: Serve = (socket) => serveSession(socket, () => (http2 ??= loadServer()));
  const at = process.argv.indexOf('--listen-unix');
  const path = at < 0 ? undefined : process.argv[at + 1];
  if (path !== undefined) {
    serveUnix(path, serve);
    return;
  }
  const ports = virtioPorts();
  for (const port of ports) void serveVirtioPort(port, serve);
  if (hasVsock()) serveVsock(serve).catch((error: unknown) => complain('vsock', error));
  else if (ports.length === 0) die('neither a vsock device nor a virtio-serial port of ours');
}

/** Loaded when the first host is there: the answer to its preamble need not wait for it. */
async function loadServer(): Promise<ServeHttp2> {
  const [{ http2Server }, execs] = await Promise.all([import('./server.ts'), loadExecs()]);
  return http2Server(execs);
}

async function loadExecs(): Promise<Execs> {
  const { Execs } = await import('./execs.ts');
  const execs = new Execs();
  setImmediate(() => execs.prepare());
  return execs;
}

/** Not `process.exit`: that joins libuv's threads, and one may wait for a host that never comes. */
function die(error: unknown): void {
  complain('fatal', error instanceof Error ? (error.stack ?? error.message) : error);
  process.kill(process.pid, 'SIGKILL');
}

main();
