import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { HostError, QmpConnectError } from '../src/errors.ts';
import type { WaitOptions } from './deadline.ts';
import { armDeadline } from './deadline.ts';
import { BUSY_RETRY_MS, MAX_SOCKET_PATH_BYTES } from './limits.ts';

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Start the VM first; QEMU creates the socket when it starts.',
  ECONNREFUSED: 'The QEMU that made this socket is gone: remove the file and start the VM again.',
  EACCES: 'Run as the user that started the VM, or as root.',
};

/**
 * Connects to a unix socket. QEMU serves one client at a time and keeps few waiting; where even
 * those places are taken (EAGAIN, where a blocking connect(2) would wait), it is tried again until
 * the time is up.
 *
 * @param onConnect Is given the socket at once, so that its listeners miss nothing.
 * @throws HostError (ERR_HOST_SOCKET) where the path is longer than the kernel takes;
 * QmpConnectError; TimeoutError; `signal.reason`.
 */
export function connectSocket<T>(
  path: string,
  wait: WaitOptions,
  onConnect: (socket: Socket) => T,
): Promise<T> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    const problem = `socket path has more than ${MAX_SOCKET_PATH_BYTES} bytes: ${path}`;
    const hint = 'Choose a shorter runtime directory (state.runtimeDir).';
    return Promise.reject(new HostError('ERR_HOST_SOCKET', problem, { hint }));
  }
  return new Promise((resolve, reject) => {
    let socket: Socket;
    let retry: NodeJS.Timeout | undefined;
    const disarm = armDeadline(`QMP connection to ${path}`, wait, BUSY_HINT, (reason) => {
      clearTimeout(retry);
      socket.destroy();
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
      reject(reason);
    });
    const attempt = (): void => {
      socket = createConnection({ path });
      const onError = (cause: NodeJS.ErrnoException): void => {
        if (cause.code === 'EAGAIN') {
          retry = setTimeout(attempt, BUSY_RETRY_MS);
          return;
        }
        disarm();
        const hint = HINTS[cause.code ?? ''] ?? 'Check that the path is a QMP socket of QEMU.';
        reject(new QmpConnectError(`cannot connect to ${path}: ${cause.message}`, { cause, hint }));
      };
      socket.once('error', onError);
      socket.once('connect', () => {
        disarm();
        socket.off('error', onError);
        resolve(onConnect(socket));
      });
    };
    attempt();
  });
}

/** Why a QMP socket that exists may stay silent. */
export const BUSY_HINT =
  'A QMP socket serves one client at a time: close the other client, or use the second monitor. ' +
  'Where there is none, QEMU hangs or is stopped (SIGSTOP).';
