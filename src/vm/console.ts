/** The serial console, both ways. */
import { connect, type Socket } from 'node:net';
import { HostError } from '../errors.ts';
import { eitherSignal, lateSignal } from './abort.ts';
import type { WaitOptions } from './api.ts';
import { FileLock } from './file-lock.ts';
import type { VmPaths } from './vm-paths.ts';

/** Until QEMU takes the connection. */
const DEFAULT_TIMEOUT_MS = 5_000;

/**
 * Connects to a VM's serial console. What it printed before is in the log, not in the stream.
 * @throws HostError ERR_HOST_SOCKET another process has it, or QEMU does not take the connection
 */
export async function attachConsole(
  vmId: string,
  paths: VmPaths,
  o: WaitOptions = {},
): Promise<Socket> {
  const lock = await FileLock.tryAcquire(`${paths.dir}/console.lock`);
  if (lock === undefined) {
    throw new HostError('ERR_HOST_SOCKET', `another process has the console of VM ${vmId}`, {
      vmId,
      hint: 'Leave the other console first; `qmp-agent logs --follow` shows the output to any number.',
    });
  }
  const socket = connect({ path: paths.consoleSocketPath });
  socket.once('close', () => void lock.release());
  const late = lateSignal(o.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const signal = eitherSignal(late, o.signal);
  try {
    await connected(socket, signal);
    return socket;
  } catch (error) {
    socket.destroy();
    if (o.signal?.aborted) throw o.signal.reason;
    throw new HostError('ERR_HOST_SOCKET', `the console of VM ${vmId} cannot be reached`, {
      vmId,
      hint: 'See with `qmp-agent inspect` whether the VM runs.',
      cause: error,
    });
  }
}

function connected(socket: Socket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    socket.on('error', reject); // stays: the close that follows tells the reader
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
