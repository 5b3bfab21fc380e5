/** A guest and its host: what one connection between them carries, and how many are made. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { StateError } from '../errors.ts';
import { Vm } from '../vm/index.ts';
import { interleave } from './interleave.ts';
import type { BenchSeries } from './report.ts';
import type { BenchOptions } from './subject.ts';

const PORT = 8000;
const TRANSFER_MIB = 16;
const ROUND_TRIPS = 100;
const CONNECTIONS = 30;
const CONNECT_TRIES = 200;
const RETRY_MS = 50;

/** By its first byte a connection is sent back, taken whole, or given bytes. */
const SERVER = `
import socket, threading
def serve(c):
    try:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = c.recv(1)
        if kind == b'e':
            while d := c.recv(65536): c.sendall(d)
        elif kind == b's':
            while c.recv(1 << 20): pass
            c.sendall(b'.')
        elif kind == b'd':
            c.sendall(bytes(${TRANSFER_MIB} << 20))
    except OSError:
        pass
    c.close()
s = socket.create_server(('', ${PORT}), backlog=128)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],)).start()`;

/**
 * Of one clone with a tap: `net.guest.rtt` (a byte to the guest and back), `.down` and `.up` (MiB/s to and from
 * the guest), `.connections` (made one after the other in a second).
 */
export async function measureGuest(
  template: string,
  options: BenchOptions,
): Promise<BenchSeries[]> {
  const {
    vm: { paths },
    signal,
  } = options;
  await using vm = await Vm.fromTemplate(template, { paths, signal, network: 'nat-filtered' });
  await vm.commands.run(['python3', '-c', SERVER], { background: true, timeoutMs: 0 });
  const { guestAddress } = await vm.network.info();
  if (guestAddress === undefined) {
    throw new StateError(`VM ${vm.id} has no address`, {
      ...{ vmId: vm.id, actual: 'no tap', required: ['nat-filtered'] },
    });
  }
  const open = () => connectTo(guestAddress, signal);
  (await untilThere(open, signal)).destroy();
  return interleave(
    [
      { name: 'net.guest.rtt', unit: 'ms', sample: () => roundTrip(open) },
      { name: 'net.guest.down', unit: 'MiB/s', sample: () => send(open) },
      { name: 'net.guest.up', unit: 'MiB/s', sample: () => receive(open) },
      { name: 'net.guest.connections', unit: '/s', sample: () => connections(open) },
    ],
    options,
  );
}

type Open = () => Promise<Socket>;

async function connectTo(host: string, signal: AbortSignal): Promise<Socket> {
  const socket = connect({ host, port: PORT, noDelay: true });
  try {
    await once(socket, 'connect', { signal });
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function untilThere(open: Open, signal: AbortSignal): Promise<Socket> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await open();
    } catch (error) {
      if (signal.aborted || tries === CONNECT_TRIES) throw error;
      await delay(RETRY_MS, undefined, { signal });
    }
  }
}

async function roundTrip(open: Open): Promise<number> {
  const socket = await open();
  socket.write('ee'); // the first byte says what is wanted
  await once(socket, 'data');
  const began = performance.now();
  for (let n = 0; n < ROUND_TRIPS; n += 1) {
    socket.write('.');
    await once(socket, 'data');
  }
  const ms = performance.now() - began;
  socket.destroy();
  return ms / ROUND_TRIPS;
}

async function send(open: Open): Promise<number> {
  const socket = await open();
  const began = performance.now();
  socket.end(Buffer.alloc(TRANSFER_MIB * 2 ** 20, 's'));
  await once(socket, 'data');
  return perSecond(TRANSFER_MIB, began);
}

async function receive(open: Open): Promise<number> {
  const socket = await open();
  const began = performance.now();
  socket.write('d');
  socket.resume();
  await once(socket, 'end');
  return perSecond(TRANSFER_MIB, began);
}

async function connections(open: Open): Promise<number> {
  const began = performance.now();
  for (let n = 0; n < CONNECTIONS; n += 1) (await open()).resetAndDestroy();
  return perSecond(CONNECTIONS, began);
}

function perSecond(count: number, began: number): number {
  return count / ((performance.now() - began) / 1000);
}
