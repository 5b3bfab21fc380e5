/** Where the host reaches the agent. Only the host dials; the guest waits. */
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  constants,
  write,
} from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { descriptorOf, serverFromVsock, socketFromDevice } from './handles.ts';
import { libc, VMADDR_CID_HOST } from './libc.ts';
import { VIRTIO_PORT_PREFIX, VSOCK_PORT } from './protocol.ts';

/** Serves one connection until it is over; never rejects. */
export type Serve = (socket: Socket) => Promise<void>;

const PORTS_DIR = '/sys/class/virtio-ports';
/** Most virtio-serial ports that are served. */
export const MAX_PORTS = 8;
const VSOCK_DEVICE = '/dev/vsock';
const BACKLOG = 64;
/** Connections served at once by one listener; more are turned away. */
const MAX_CONNECTIONS = 64;
/** Pause after a channel that cannot be opened or that ended at once. */
const RETRY_MS = 50;

/** Devices of the virtio-serial ports that are ours. */
export function virtioPorts(dir = PORTS_DIR): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((port) => readFileSync(`${dir}/${port}/name`, 'latin1').startsWith(VIRTIO_PORT_PREFIX))
    .slice(0, MAX_PORTS)
    .map((port) => `/dev/${port}`);
}

/**
 * Serves a virtio-serial port for ever: one session at a time, the port opened anew for each.
 *
 * A read from a port whose host side is closed gives EOF at once, and poll reports it readable, so
 * waiting by either would spin. A blocking *write* waits in the kernel until the host connects
 * (`port_fops_write` in Linux's drivers/char/virtio_console.c); it waits in a thread of libuv's pool, and
 * its one byte is one that the host skips. From then on the port is a non-blocking stream.
 *
 * @param first is sent once, when the first host has connected
 */
export async function serveVirtioPort(
  device: string,
  serve: Serve,
  first: Buffer = Buffer.alloc(0),
): Promise<never> {
  for (let isFirst = true; ; isFirst = false) {
    let fd: number | undefined;
    try {
      fd = openSync(device, constants.O_RDWR | constants.O_NOCTTY);
      await writeOne(fd, '\n');
      const socket = socketFromDevice(fd);
      fd = undefined;
      if (isFirst) socket.write(first);
      await serve(socket);
      await closed(socket);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      complain(device, error);
      await delay(RETRY_MS);
    }
  }
}

const writeOne = promisify(write) as (fd: number, text: string) => Promise<unknown>;

/** The port can be opened again only when the descriptor is closed. */
async function closed(socket: Socket): Promise<void> {
  socket.destroy();
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
}

/** Whether the guest has a vsock device. */
export function hasVsock(): boolean {
  return existsSync(VSOCK_DEVICE);
}

/** Listens on vsock; peers other than the host are turned away. */
export async function serveVsock(
  serve: Serve,
  o: { port?: number; peerCid?: number } = {},
): Promise<void> {
  const { listenVsock, vsockPeer } = await libc();
  const server = serverFromVsock(listenVsock(o.port ?? VSOCK_PORT, BACKLOG), (socket) => {
    if (vsockPeer(descriptorOf(socket)).cid === (o.peerCid ?? VMADDR_CID_HOST)) void serve(socket);
    else socket.destroy();
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('error', (error) => complain('vsock', error));
}

/** Listens on a unix socket. For tests on the host: no guest has one. */
export function serveUnix(path: string, serve: Serve): void {
  const server = createServer((socket) => void serve(socket));
  server.on('error', (error) => {
    complain(path, error);
    process.exitCode = 1;
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.listen(path);
}

/** One line to stderr, which the init sends to the console. */
export function complain(what: string, error: unknown): void {
  process.stderr.write(
    `qmp-agent: ${what}: ${error instanceof Error ? error.message : String(error)}\n`,
  );
}
