/** A session with a guest's agent. */
import type { ClientHttp2Stream } from 'node:http2';
import {
  LIMITS,
  SPEC_HEADER,
  SPEC_HEADER_BYTES,
  type ExecInfo,
  type ExecSpec,
  type GuestStatus,
  type NetworkSpec,
  type PingReply,
  type RenewSpec,
  type ThawReply,
} from '../../guest-agent/protocol.ts';
import { FrameError } from '../../guest-agent/frames.ts';
import {
  ConfigError,
  GuestDisconnectedError,
  GuestProtocolError,
  VmRestoredError,
} from '../errors.ts';
import { events } from '../events.ts';
import { dial, type ChannelTarget, type DialOptions } from './dial.ts';
import { ExecStream, type GuestExec } from './exec.ts';
import { announceExec } from './exec-events.ts';
import { parseList, parsePing, parseStatus, parseThaw } from './replies.ts';
import {
  DEFAULT_CALL_TIMEOUT_MS,
  openStream,
  protocolError,
  request,
  withDeadline,
  type CallOptions,
  type RequestContext,
} from './request.ts';
import { specText, traceAgent } from './transcript.ts';
import { Wire, type WhyLost } from './wire.ts';

/** How a session is opened. `timeoutMs` is until the agent must have answered, boot time included. */
export interface ConnectOptions extends DialOptions {
  /**
   * While execs run: how often the agent is asked whether it is alive, and how long it may take, ms.
   * Default {@link DEFAULT_KEEP_ALIVE_MS}.
   */
  readonly keepAliveMs?: number | undefined;
  /** Whether the guest's vCPUs stand still now: then it need not answer. Default: never. */
  readonly isPaused?: (() => boolean) | undefined;
  /** The guest is a copy, and this makes it a machine of its own; asked for when the agent is reached. */
  readonly renew?: (() => RenewSpec) | undefined;
  /** The guest was put back to where it was once, and this is what it must know first; asked for when it is reached. */
  readonly wake?: (() => WakeSpec | undefined) | undefined;
  /** Asked when the session was lost. */
  readonly whyLost?: WhyLost | undefined;
}

/** What a guest is given that goes on from where it was once. */
export interface WakeSpec {
  /** For its random generator, which is reseeded; 32 to 4096 bytes. */
  readonly entropy: Uint8Array;
  /** The time, ms since the epoch. */
  readonly unixMs: number;
  /** Where it is to be given anew. */
  readonly network?: NetworkSpec | undefined;
}

/** Default of {@link ConnectOptions.keepAliveMs}. */
export const DEFAULT_KEEP_ALIVE_MS = 60_000;

/** A session. Every byte that the guest sends is checked; what breaks the protocol ends the session, and nothing else. */
export class GuestSession implements AsyncDisposable {
  /** What the agent says of itself. */
  readonly agent: PingReply;
  /** Resolves when the session is over: with the reason, or undefined after {@link close}. */
  readonly closed: Promise<Error | undefined>;
  readonly #wire: Wire;
  readonly #keepAlive: NodeJS.Timeout;
  readonly #isPaused: () => boolean;
  #pinging = false;

  /**
   * Dials until the agent answers.
   * @throws TimeoutError, GuestVersionError, GuestConnectError, GuestProtocolError, HostError, or the signal's reason
   */
  static async connect(target: ChannelTarget, o: ConnectOptions): Promise<GuestSession> {
    const deadline = performance.now() + o.timeoutMs;
    const dialed = await dial(target, o);
    const wire = new Wire(dialed, o.vmId, o.whyLost);
    try {
      const timeoutMs = Math.max(1, Math.ceil(deadline - performance.now()));
      const bounds = { signal: o.signal, timeoutMs };
      const woken = o.wake?.();
      // All in one write, so that the guest is woken up once.
      const [reply] = await Promise.all([
        o.renew === undefined
          ? request(wire, 'GET', '/ping', undefined, bounds)
          : request(wire, 'POST', '/renew', renewBody(o.renew()), bounds),
        woken && wake(wire, woken, bounds),
      ]);
      const agent = checked(wire, () => parsePing(reply));
      const channel = target.kind === 'vsock' ? 'vsock' : 'virtio-serial';
      events.emit('guest.connected', { vmId: o.vmId, agentVersion: agent.agentVersion, channel });
      return new GuestSession(wire, agent, o);
    } catch (error) {
      wire.close();
      throw error;
    }
  }

  private constructor(wire: Wire, agent: PingReply, o: ConnectOptions) {
    this.#wire = wire;
    this.agent = agent;
    const { keepAliveMs = DEFAULT_KEEP_ALIVE_MS, isPaused = () => false } = o;
    this.#isPaused = isPaused;
    this.#keepAlive = setInterval(() => void this.#checkAlive(keepAliveMs), keepAliveMs);
    this.#keepAlive.unref();
    this.closed = wire.closed.then((reason) => {
      clearInterval(this.#keepAlive);
      const { vmId } = wire;
      if (reason instanceof GuestProtocolError) {
        events.emit('fault.guest-protocol', { vmId, message: reason.message });
      }
      events.emit('guest.disconnected', { vmId, reason: reason?.message ?? 'closed' });
      return reason;
    });
  }

  /** Round trip to the agent's event loop, ms. */
  async ping(o: CallOptions = {}): Promise<number> {
    const { http2 } = this.#wire;
    if (http2.closed || http2.destroyed) throw this.#wire.lostError();
    const sent = new Promise<number>((resolve, reject) => {
      const accepted = http2.ping((error, ms) => {
        if (error) reject(this.#wire.lostError());
        else resolve(ms);
      });
      this.#wire.budget.pinged();
      if (!accepted) reject(protocolError(this.#wire, 'pings stay unanswered'));
    });
    const timeoutMs = o.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
    return withDeadline(
      sent,
      { operation: 'ping', vmId: this.#wire.vmId, signal: o.signal, timeoutMs },
      () => undefined,
    );
  }

  /** Uptime, memory, load, processes, disk. */
  async status(o?: CallOptions): Promise<GuestStatus> {
    const reply = await request(this.#wire, 'GET', '/status', undefined, o);
    return checked(this.#wire, () => parseStatus(reply));
  }

  /**
   * Starts a process. Resolves once it runs.
   * @throws GuestRequestError where it cannot be started (`ENOENT`, `EACCES`, `EUSER`, …)
   */
  async exec(spec: ExecSpec, o: CallOptions = {}): Promise<GuestExec> {
    o.signal?.throwIfAborted();
    const json = Buffer.from(JSON.stringify(spec));
    if (json.length > LIMITS.specBytes) {
      throw new ConfigError(`the command and its environment take ${json.length} bytes`, {
        field: 'command',
        hint: `Stay below ${LIMITS.specBytes} bytes; pass more by stdin or a file.`,
      });
    }
    traceAgent(this.#wire.vmId, 'out', () => `POST /execs ${specText(spec)}`);
    const exec = this.#execStream(this.#sendSpec(json, spec.stdin === true));
    if (spec.stdin) exec.openStdin();
    await this.#started(exec, 'exec', o, () => exec.abandon());
    announceExec(this.#wire.vmId, spec, exec);
    return exec;
  }

  /** Listens to an exec: what the agent kept of its output, then what comes. */
  async attach(execId: string, o: CallOptions = {}): Promise<GuestExec> {
    const path = `/execs/${encodeURIComponent(execId)}/output`;
    traceAgent(this.#wire.vmId, 'out', () => `GET ${path}`);
    const exec = this.#execStream(openStream(this.#wire, 'GET', path, true));
    return this.#started(exec, `attach to exec ${execId}`, o, () => void exec.detach());
  }

  /** Execs that run, and those that ended lately. */
  async list(o?: CallOptions): Promise<ExecInfo[]> {
    const reply = await request(this.#wire, 'GET', '/execs', undefined, o);
    return checked(this.#wire, () => parseList(reply));
  }

  /** Signals an exec's process group, or with `tree` all that descends from it. */
  async signal(
    execId: string,
    signal: string,
    o: CallOptions & { tree?: boolean } = {},
  ): Promise<void> {
    const path = `/execs/${encodeURIComponent(execId)}/signal`;
    await this.#post(path, { signal, tree: o.tree ?? false }, o);
  }

  /** Writes to an exec's stdin from outside the stream that started it. Resolves when the agent took it. */
  async writeStdin(
    execId: string,
    data: Uint8Array,
    o: CallOptions & { eof?: boolean } = {},
  ): Promise<void> {
    const query = o.eof ? '?eof=1' : '';
    await request(
      this.#wire,
      'POST',
      `/execs/${encodeURIComponent(execId)}/stdin${query}`,
      data,
      o,
    );
  }

  /** Sets the guest's wall clock, ms since the epoch. */
  async setClock(unixMs: number, o?: CallOptions): Promise<void> {
    await this.#post('/clock', { unixMs }, o);
  }

  /** Lets a guest know what it must know first where it goes on from where it was once. */
  async wake(spec: WakeSpec, o?: CallOptions): Promise<void> {
    await wake(this.#wire, spec, o);
  }

  async setHostname(hostname: string, o?: CallOptions): Promise<void> {
    await this.#post('/hostname', { hostname }, o);
  }

  /** Sets the guest's network. @throws GuestRequestError its code is the errno's name (`ENODEV`, …) */
  async setNetwork(spec: NetworkSpec, o?: CallOptions): Promise<void> {
    await this.#post('/network', spec, o);
  }

  /** Makes the root file system as large as its disk. @throws GuestRequestError it cannot be grown */
  async growRoot(o?: CallOptions): Promise<void> {
    await this.#post('/grow', {}, o);
  }

  /** Writes to the guest's disks what was written to files. */
  async sync(o?: CallOptions): Promise<void> {
    await this.#post('/sync', {}, o);
  }

  /**
   * Stops all processes that execs have started, until {@link thaw} or {@link renew}; execs that are
   * asked for meanwhile start then.
   * @throws GuestRequestError `EBUSY`: they go on
   */
  async park(o?: CallOptions): Promise<void> {
    await this.#post('/park', {}, o);
  }

  /** Lets go on what {@link park} has stopped, the guest's wall clock set to ms since the epoch. */
  async thaw(unixMs: number, o?: CallOptions): Promise<ThawReply> {
    const reply = await request(this.#wire, 'POST', '/thaw', JSON.stringify({ unixMs }), o);
    return checked(this.#wire, () => parseThaw(reply));
  }

  /** Makes a copy of a guest a machine of its own, and lets go on what execs had started in it. */
  async renew(spec: RenewSpec, o?: CallOptions): Promise<void> {
    await request(this.#wire, 'POST', '/renew', renewBody(spec), o);
  }

  /** Asks the guest to power off. Resolves when it has taken the request. */
  async poweroff(o?: CallOptions): Promise<void> {
    await this.#post('/poweroff', {}, o);
  }

  /** Ends the session because its agent is known to be gone; what waits is told. */
  agentGone(): void {
    const hint = 'The guest starts its agent again; connect again. Its console says how it ended.';
    const { vmId } = this.#wire;
    this.#wire.fail(new GuestDisconnectedError('the guest agent ended', { vmId, hint }));
  }

  /** Ends the session because the guest is put back to a snapshot; what waits is told. */
  restored(): void {
    this.#wire.fail(restoredError(this.#wire.vmId));
  }

  /** Ends the session; execs go by their `onDisconnect`. */
  async close(): Promise<void> {
    this.#wire.close();
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Opens an exec's stream; with stdin, that is the rest of its body. */
  #sendSpec(json: Buffer, withStdin: boolean): ClientHttp2Stream {
    const ascii = withStdin || json.length > SPEC_HEADER_BYTES ? undefined : asciiJson(json);
    if (ascii !== undefined && ascii.length <= SPEC_HEADER_BYTES) {
      return openStream(this.#wire, 'POST', '/execs', true, { [SPEC_HEADER]: ascii });
    }
    const stream = openStream(this.#wire, 'POST', '/execs', false);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(json.length);
    const first = Buffer.concat([head, json]);
    if (withStdin) stream.write(first);
    else stream.end(first);
    return stream;
  }

  #execStream(stream: ClientHttp2Stream): ExecStream {
    return new ExecStream(this.#wire, stream, async (id, signal) => {
      await this.signal(id, signal, { tree: true });
    });
  }

  async #started(
    exec: ExecStream,
    operation: string,
    o: CallOptions,
    giveUp: () => void,
  ): Promise<GuestExec> {
    const timeoutMs = o.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
    const { vmId } = this.#wire;
    const bounds = { operation, vmId, signal: o.signal, timeoutMs };
    return withDeadline(exec.started(), bounds, giveUp);
  }

  async #post(path: string, body: object, o?: CallOptions): Promise<void> {
    await request(this.#wire, 'POST', path, JSON.stringify(body), o);
  }

  /** A guest that hangs, or a wire that leads nowhere, is noticed while somebody waits for an exec. */
  async #checkAlive(timeoutMs: number): Promise<void> {
    if (this.#pinging || this.#wire.idle || this.#isPaused()) return;
    this.#pinging = true;
    try {
      await this.ping({ timeoutMs });
    } catch {
      if (this.#isPaused()) return; // it answers when it goes on
      const text = `the guest agent did not answer within ${timeoutMs} ms`;
      const hint = 'The guest hangs or was stopped; look at its console, or kill the VM.';
      this.#wire.fail(new GuestDisconnectedError(text, { vmId: this.#wire.vmId, hint }));
    } finally {
      this.#pinging = false;
    }
  }
}

/** What waits for a guest is told when that is put back to a snapshot. */
export function restoredError(vmId: string): VmRestoredError {
  const hint = 'Start it anew: what it was about is no longer there, or is at an earlier point.';
  return new VmRestoredError(`VM ${vmId} was put back to a snapshot`, { vmId, hint });
}

async function wake(wire: Wire, spec: WakeSpec, o?: CallOptions): Promise<void> {
  const { entropy, unixMs, network } = spec;
  await Promise.all([
    request(wire, 'POST', '/entropy', entropy, o),
    request(wire, 'POST', '/clock', JSON.stringify({ unixMs }), o),
    network && request(wire, 'POST', '/network', JSON.stringify(network), o),
  ]);
}

/** As bytes: seeds do not belong into transcripts. */
function renewBody(spec: RenewSpec): Buffer {
  return Buffer.from(JSON.stringify(spec));
}

/** The same JSON without a character that a header could not hold. */
function asciiJson(json: Buffer): string {
  return json
    .toString('utf8')
    .replace(
      /[\u007f-\uffff]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
    );
}

/** Runs a check of a reply; one that fails ends the session. */
function checked<T>(wire: RequestContext, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    const failure = protocolError(wire, error.message);
    wire.fail(failure);
    throw failure;
  }
}
