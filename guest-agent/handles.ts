/**
 * Streams on descriptors that Node's public API refuses.
 *
 * `new net.Socket({fd})` guesses a descriptor's kind and rejects AF_VSOCK sockets and character
 * devices. libuv itself takes both: a `TCP` handle does plain `read`/`write`/`accept`, a `Pipe` handle
 * plain `read`/`write`. Their classes are those of the handles that Node makes for sockets of its own.
 */
import { Server, Socket, type SocketConstructorOpts } from 'node:net';

interface NativeHandle {
  open(fd: number): number | void;
  close(): void;
  readonly fd: number;
}
type HandleClass = new (type: number) => NativeHandle;

/** `TCPConstants.SOCKET` and `PipeConstants.SOCKET` in Node's sources; `SERVER` is 1. */
const HANDLE_SOCKET = 0;
const HANDLE_SERVER = 1;

const handleOf = (owner: object): NativeHandle | null =>
  (owner as { _handle?: NativeHandle | null })._handle ?? null;

/** The class of the handle that `begin` leaves in its socket or server at once. */
function handleClass(begin: () => object): HandleClass {
  const handle = handleOf(begin());
  if (!handle) throw new Error('this version of Node keeps its handles elsewhere');
  return handle.constructor as HandleClass;
}

let pipeClass: HandleClass | undefined;
let tcpClass: HandleClass | undefined;

function open(type: number, fd: number, kind: HandleClass): NativeHandle {
  const handle = new kind(type);
  const error = handle.open(fd);
  if (typeof error === 'number' && error < 0)
    throw new Error(`descriptor ${fd}: libuv error ${error}`);
  return handle;
}

function socketOn(handle: NativeHandle): Socket {
  return new Socket({ handle, readable: true, writable: true } as SocketConstructorOpts);
}

/** A listener for a moment: a client socket would connect at once. */
function findPipeClass(): HandleClass {
  const server = new Server();
  try {
    return handleClass(() => server.listen(`\0qmp-agent-${process.pid}`));
  } finally {
    server.close();
  }
}

/**
 * A socket that would connect in the next tick, if it lived so long. A server would not do: it looks
 * its address up before it makes a handle, and without an address it would listen on all of them.
 */
function findTcpClass(): HandleClass {
  const socket = new Socket();
  try {
    return handleClass(() => socket.connect({ host: '127.0.0.1', port: 1 }));
  } finally {
    socket.destroy();
  }
}

/** A stream on a character device or pipe; takes the descriptor over, and makes it non-blocking. */
export function socketFromDevice(fd: number): Socket {
  pipeClass ??= findPipeClass();
  return socketOn(open(HANDLE_SOCKET, fd, pipeClass));
}

/** A stream on a connected AF_VSOCK socket; takes the descriptor over. */
export function socketFromVsock(fd: number): Socket {
  tcpClass ??= findTcpClass();
  return socketOn(open(HANDLE_SOCKET, fd, tcpClass));
}

/** Accepts on a listening AF_VSOCK socket; takes the descriptor over. */
export function serverFromVsock(fd: number, onConnection: (socket: Socket) => void): Server {
  tcpClass ??= findTcpClass();
  const server = new Server(onConnection);
  server.listen(open(HANDLE_SERVER, fd, tcpClass));
  return server;
}

/** The descriptor under a socket, −1 where it has none any more. */
export function descriptorOf(socket: Socket): number {
  return handleOf(socket)?.fd ?? -1;
}
