/** Reaching a guest's agent: connect, say who we are, wait for the answer. */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { socketFromVsock } from '../../guest-agent/handles.ts';
import { libc, LibcError } from '../../guest-agent/libc.ts';
import {
  HostPreambleReader,
  hostPreamble,
  WIRE_BREAK,
  type GuestHello,
} from '../../guest-agent/preamble.ts';
import { PROTOCOL_VERSION } from '../../guest-agent/protocol.ts';
import {
  GuestConnectError,
  GuestProtocolError,
  GuestVersionError,
  HostError,
  TimeoutError,
} from '../errors.ts';

/** Where an agent is reached. */
export type ChannelTarget =
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** A connection on which the agent has answered. */
export interface Dialed {
  readonly socket: Socket;
  readonly agentVersion: string;
}

/** Between attempts to connect: nobody listens yet. */
const REDIAL_MS = 20;
/**
 * Between preambles on a connection that stands. One is enough for an agent that is still booting,
 * since the wire keeps it; the others are for an agent in the midst of an earlier session.
 */
const RESEND_MS = 200;
/**
 * From this attempt on, a {@link WIRE_BREAK} goes before the preamble, unless the guest has just been
 * started: an agent that was restored in the midst of a session takes what comes for a part of it.
 */
const FILLER_FROM_ATTEMPT = 2;
/**
 * Attempts more without it where the agent has just opened the port: it is in no session then, and 20 KiB that
 * come while it is about to answer are 0.2 s more under emulation.
 */
const OPENED_GRACE = 5;
/** Last byte of what an agent sends when it has opened a virtio-serial port: `guest-agent/channels.ts`. */
const PORT_OPENED = 0x0a;
/** Most attempts that write to one connection: an agent that never reads must not fill our memory. */
const MAX_PREAMBLES = 600;
/** Stale bytes before the answer: more than QEMU, the port's ring and the sockets can hold. */
export const MAX_STALE_BYTES = 16 * 1024 * 1024;
/**
 * An agent that does not answer on a wire that stands is dialed anew after this long, ms; then after twice as
 * long, and so on: it may just be slow. Hanging up is what QEMU needs where a host did so while the vCPUs
 * stood still: it does not notice then (`virtio_console_enable_backend` in hw/char/virtio-console.c), lets the
 * guest write to nobody, and from the first such write on holds the guest's output back, until it sees a
 * host hang up (`virtio_serial_close` in hw/char/virtio-serial-bus.c resets `throttled`; nothing else does).
 */
const FIRST_PATIENCE_MS = 2_000;
const MAX_PATIENCE_MS = 30_000;
/** One attempt to connect over vsock. */
const VSOCK_ATTEMPT_MS = 1_000;

/** How an agent is dialed. */
export interface DialOptions {
  readonly vmId: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /**
   * The guest has just been started: there is no earlier session that would have to be broken, and all
   * that is sent while it boots waits in the wire. Default false.
   */
  readonly booting?: boolean | undefined;
  /**
   * The guest has just been put back to a snapshot: its agent may stand in the midst of a session that
   * nobody else remembers, so that is broken first. Default false.
   */
  readonly restored?: boolean | undefined;
  /**
   * Somebody may have hung up while the vCPUs stood still, so that QEMU and the guest do not know of it: the
   * wire is hung up once more before it is used. Default false.
   */
  readonly hangUpFirst?: boolean | undefined;
}

/**
 * Dials until the agent answers.
 * @throws TimeoutError, GuestVersionError, GuestConnectError, GuestProtocolError, HostError
 */
export async function dial(target: ChannelTarget, o: DialOptions): Promise<Dialed> {
  // It takes whole milliseconds only.
  const timeout = AbortSignal.timeout(Math.ceil(o.timeoutMs));
  const signal = o.signal ? AbortSignal.any([o.signal, timeout]) : timeout;
  const isWire = target.kind === 'unix' && o.booting !== true;
  let last: unknown;
  try {
    if (isWire && o.hangUpFirst === true) await hangUp(target, signal);
    for (let patienceMs = FIRST_PATIENCE_MS; ;) {
      signal.throwIfAborted();
      const socket = await connectOnce(target, signal).catch((error: unknown) => {
        last = error;
        if (isFinal(error)) throw connectFailure(target, error, o.vmId);
      });
      if (socket) {
        const startedAt = performance.now();
        const dialed = await shakeHands(socket, isWire ? { ...o, patienceMs } : o, signal);
        if (dialed) return dialed;
        const isTried = performance.now() - startedAt >= patienceMs;
        if (isTried) patienceMs = Math.min(2 * patienceMs, MAX_PATIENCE_MS);
        last = new Error('the connection was closed before the agent answered');
      }
      await delay(REDIAL_MS, undefined, { signal });
    }
  } catch (error) {
    if (o.signal?.aborted) throw o.signal.reason;
    if (!timeout.aborted) throw error;
    throw new TimeoutError(`guest agent of VM ${o.vmId}`, o.timeoutMs, {
      vmId: o.vmId,
      cause: last,
      hint: 'Look at the serial console (`qmp-agent logs`), or allow more time to boot.',
    });
  }
}

/**
 * The bare channel, as soon as there is one: no preamble, no protocol.
 * @throws HostError, GuestConnectError where it never can be; `signal.reason`
 */
export async function openChannel(target: ChannelTarget, signal: AbortSignal): Promise<Socket> {
  for (;;) {
    signal.throwIfAborted();
    const socket = await connectOnce(target, signal).catch((error: unknown) => {
      if (isFinal(error)) throw connectFailure(target, error, 'none');
    });
    if (socket) return socket;
    await delay(REDIAL_MS, undefined, { signal });
  }
}

/** Connects and hangs up. */
async function hangUp(target: ChannelTarget, signal: AbortSignal): Promise<void> {
  const socket = await connectOnce(target, signal).catch(() => undefined); // the next attempt says why
  socket?.destroy();
}

async function connectOnce(target: ChannelTarget, signal: AbortSignal): Promise<Socket> {
  if (target.kind === 'vsock') {
    const { connectVsock } = await libc();
    const socket = socketFromVsock(await connectVsock(target.cid, target.port, VSOCK_ATTEMPT_MS));
    socket.on('error', () => undefined);
    return socket;
  }
  return new Promise((resolve, reject) => {
    const socket = connect({ path: target.path });
    const onAbort = () => socket.destroy(signal.reason as Error);
    const settle = (action: () => void) => {
      signal.removeEventListener('abort', onAbort); // the socket outlives the dialing
      action();
    };
    signal.addEventListener('abort', onAbort);
    socket.once('connect', () => settle(() => resolve(socket)));
    // Stays: an error without a listener would end the process. 'close' tells the rest.
    socket.on('error', (error) => settle(() => reject(error)));
  });
}

/** Errors that no later attempt can cure. */
function isFinal(error: unknown): boolean {
  if (error instanceof LibcError) return ['EAFNOSUPPORT', 'EACCES', 'EPERM'].includes(error.code);
  return ['EACCES', 'EPERM', 'EINVAL', 'ENOTSOCK'].includes(
    (error as NodeJS.ErrnoException).code ?? '',
  );
}

function connectFailure(target: ChannelTarget, cause: unknown, vmId: string): Error {
  const text = cause instanceof Error ? cause.message : String(cause);
  if (target.kind === 'vsock') {
    return new HostError('ERR_HOST_VSOCK', `vsock to CID ${target.cid} cannot work: ${text}`, {
      vmId,
      cause,
      hint: 'Load the vhost_vsock module, or use the virtio-serial channel.',
    });
  }
  return new GuestConnectError(`channel ${target.path} cannot be opened: ${text}`, {
    vmId,
    cause,
    hint: 'Run as the user who started the VM.',
  });
}

/** The connection, once the agent answered; undefined where it was closed before, or patience is over. */
async function shakeHands(
  socket: Socket,
  { vmId, booting = false, restored = false, patienceMs }: DialOptions & { patienceMs?: number },
  signal: AbortSignal,
): Promise<Dialed | undefined> {
  let sent = 0;
  let fillerFrom = FILLER_FROM_ATTEMPT;
  const nonce = randomBytes(16).toString('hex');
  const send = () => {
    if (sent >= MAX_PREAMBLES || socket.writableNeedDrain) return;
    const isStale = restored || (!booting && sent >= fillerFrom);
    if (isStale) socket.write(WIRE_BREAK);
    sent += 1;
    socket.write(hostPreamble(nonce));
  };
  let isGraced = false;
  const onOpened = (isNothingElse: boolean) => {
    // Once: lines of a session that is still there may end so, too.
    if (isNothingElse && !isGraced) fillerFrom = sent + 1 + OPENED_GRACE;
    isGraced = true;
    send();
  };
  const resend = setInterval(send, RESEND_MS);
  const giveUp = patienceMs && setTimeout(() => socket.destroy(), patienceMs);
  try {
    const answer = readAnswer(socket, { nonce, vmId, signal, onOpened });
    send();
    const hello = await answer;
    if (!hello) return undefined;
    checkVersion(hello, vmId);
    if (hello.rest.length > 0) socket.unshift(hello.rest);
    return { socket, agentVersion: hello.agentVersion };
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearInterval(resend);
    clearTimeout(giveUp);
  }
}

function readAnswer(
  socket: Socket,
  {
    nonce,
    vmId,
    signal,
    onOpened,
  }: {
    nonce: string;
    vmId: string;
    signal: AbortSignal;
    onOpened: (isNothingElse: boolean) => void;
  },
): Promise<GuestHello | undefined> {
  const reader = new HostPreambleReader(nonce);
  return new Promise((resolve, reject) => {
    const settle = (action: () => void) => {
      socket.pause();
      socket.off('data', onData);
      socket.off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      action();
    };
    const onClose = () => settle(() => resolve(undefined));
    const onAbort = () => settle(() => reject(signal.reason as Error));
    const onData = (chunk: Buffer) => {
      const hello = reader.push(chunk);
      if (hello) settle(() => resolve(hello));
      else if (reader.bytes > MAX_STALE_BYTES) settle(() => reject(notAnAgent(vmId)));
      // What it was sent before was for its earlier session, and is lost.
      else if (chunk.at(-1) === PORT_OPENED) onOpened(chunk.length === 1);
    };
    socket.on('data', onData);
    socket.once('close', onClose);
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
}

function notAnAgent(vmId: string): Error {
  return new GuestProtocolError(
    `what answers on the channel is not an agent: ${MAX_STALE_BYTES} bytes without its answer`,
    { vmId, hint: 'The guest is not to be trusted any more; remove the VM.' },
  );
}

function checkVersion(hello: GuestHello, vmId: string): void {
  if (hello.protocol === PROTOCOL_VERSION) return;
  const older = hello.protocol < PROTOCOL_VERSION ? 'agent' : 'host';
  throw new GuestVersionError(
    `the host speaks protocol ${PROTOCOL_VERSION}, the guest's agent ${hello.agentVersion} speaks ${hello.protocol}`,
    {
      vmId,
      host: PROTOCOL_VERSION,
      guest: hello.protocol,
      hint:
        older === 'agent'
          ? 'Start the VM anew: it takes the agent of this installation then.'
          : 'Use the version of qmp-agent that started this VM, or start the VM anew.',
    },
  );
}
