import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { HostError, QmpConnectError } from '../src/errors.ts';
import type { WaitOptions } from './deadline.ts';
import { armDeadline } from './deadline.ts';
import { MAX_SOCKET_PATH_BYTES } from './limits.ts';

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Start the VM first; QEMU creates the socket when it starts.',
  ECONNREFUSED: 'The QEMU that made this socket is gone: remove the file and start the VM again.',
  EACCES: 'Run as the user that started the VM, or as root.',
};

/**
 * Connects to a unix socket. Listeners must be added before the next turn of the event loop.
 *
 * @throws HostError (ERR_HOST_SOCKET) where the path is longer than the kernel takes;
 * QmpConnectError; TimeoutError as `onTimeout` makes it; `signal.reason`.
 */
export function connectSocket(path: string, wait: WaitOptions): Promise<Socket> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    const problem = `socket path has more than ${MAX_SOCKET_PATH_BYTES} bytes: ${path}`;
    const hint = 'Choose a shorter runtime directory (state.runtimeDir).';
    return Promise.reject(new HostError('ERR_HOST_SOCKET', problem, { hint }));
  }
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    const settle = (): void => {
      disarm();
      socket.removeAllListeners();
    };
    const fail = (error: unknown): void => {
      settle();
      // A destroyed socket may still report what went wrong; nobody is interested any more.
      socket.on('error', () => undefined).destroy();
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
      reject(error);
    };
    const disarm = armDeadline(`QMP connection to ${path}`, wait, BUSY_HINT, fail);
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      const hint = HINTS[cause.code ?? ''] ?? 'Check that the path is a QMP socket of QEMU.';
      fail(new QmpConnectError(`cannot connect to ${path}: ${cause.message}`, { cause, hint }));
    });
    socket.once('connect', () => {
      settle();
      resolve(socket);
    });
  });
}

/** Why a QMP socket that exists may stay silent. */
export const BUSY_HINT =
  'A QMP socket serves one client at a time: close the other client, or use the second monitor. ' +
  'Where there is none, QEMU hangs or is stopped (SIGSTOP).';
