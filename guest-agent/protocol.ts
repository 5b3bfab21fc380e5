/**
 * The protocol between host and guest agent: HTTP/2 (RFC 9113) over one byte stream, vsock or
 * virtio-serial, the same on both. HTTP/2 gives multiplexing and flow control; Node has both ends.
 *
 * Before HTTP/2 starts, both ends say who they are (see `preamble.ts`), because a virtio-serial port
 * may hold bytes of an earlier session, and a host must be able to find out that the agent is of
 * another version before it trusts anything else.
 *
 * Requests (host → guest). JSON bodies unless said; errors are `{error: {code, message}}` with a
 * 4xx/5xx status.
 *
 * | method and path              | body                         | reply                              |
 * |------------------------------|------------------------------|------------------------------------|
 * | GET  /ping                   | –                            | {@link PingReply}                  |
 * | GET  /status                 | –                            | {@link GuestStatus}                |
 * | POST /execs                  | spec frame, then raw stdin;  | output frames, see `frames.ts`     |
 * |                              | or {@link SPEC_HEADER}       |                                    |
 * | GET  /execs                  | –                            | {@link ExecInfo}[]                 |
 * | GET  /execs/:id/output       | –                            | output frames: replay, then live   |
 * | POST /execs/:id/stdin        | raw bytes (`?eof=1` closes)  | 204                                |
 * | POST /execs/:id/signal       | {@link SignalRequest}        | 204                                |
 * | POST /clock                  | `{unixMs}`                   | `{stepMs}`                         |
 * | POST /entropy                | raw bytes, 32–4096           | 204                                |
 * | POST /hostname               | `{hostname}`                 | 204                                |
 * | POST /network                | {@link NetworkSpec}          | 204: as if it had had no other     |
 * | POST /grow                   | –                            | 204: the root fills its disk        |
 * | POST /sync                   | –                            | 204: files are on the disk         |
 * | POST /park                   | –                            | 204: all that execs started stands |
 * | POST /thaw                   | `{unixMs}`                   | {@link ThawReply}: clock set first |
 * | POST /renew                  | {@link RenewSpec}            | {@link PingReply}: unparked        |
 * | POST /poweroff               | –                            | 204, then the guest goes down      |
 */

/** Raised with every change that an older peer would misunderstand. */
export const PROTOCOL_VERSION = 4;

/** AF_VSOCK port on which the agent listens. */
export const VSOCK_PORT = 10_240;

/** virtio-serial port names: `${VIRTIO_PORT_PREFIX}.0`, `.1`, … */
export const VIRTIO_PORT_PREFIX = 'org.qmp-agent.channel';

/**
 * Header of `POST /execs` that holds the whole spec, as JSON in ASCII, where it is short and no stdin
 * follows: a body takes the guest another turn of its event loop.
 */
export const SPEC_HEADER = 'qmp-agent-spec';

/** Longest spec in a header, bytes; the rest of {@link LIMITS.headerBytes} is for the others. */
export const SPEC_HEADER_BYTES = 8 * 1024;

/**
 * How long the first frame of an exec with {@link ExecSpec.holdStart} waits for company, ms. Most
 * commands of a script are over by then, and their whole reply is one write.
 */
export const HOLD_START_MS = 50;

/** What to run: exactly one of `argv` and `shell`. */
export interface ExecSpec {
  /** Program and arguments; the program is looked up in the guest's PATH. */
  argv?: readonly string[];
  /** A line for `/bin/bash -lc` (`/bin/sh -c` where there is no bash). */
  shell?: string;
  /** Working directory. Default: the user's home. */
  cwd?: string;
  /** Added to the image's and the user's environment. */
  env?: Readonly<Record<string, string>>;
  /** User name or numeric uid. Default: `agent` where the image has it, else root. */
  user?: string;
  /** Whether a stdin pipe is wanted. Default false: `/dev/null`. */
  stdin?: boolean;
  /** Kill the whole process tree after this many ms. Default: never. */
  timeoutMs?: number;
  /**
   * Output kept in the agent's memory for replay. Default {@link DEFAULT_REPLAY_BYTES}, at most
   * {@link LIMITS.replayBytes}.
   */
  replayBytes?: number;
  /**
   * What becomes of the exec when the stream that started it breaks off: `keep` (default) lets it run
   * on, to be listed, attached to and replayed; `kill` kills the whole process tree.
   */
  onDisconnect?: 'kill' | 'keep';
  /** Free text by which users find the exec in a list. */
  tag?: string;
  /**
   * Nobody waits for the start by itself: the first frame may come up to {@link HOLD_START_MS} late, with
   * the first output or the end. Default false.
   */
  holdStart?: boolean;
}

/** Default of {@link ExecSpec.replayBytes}. */
export const DEFAULT_REPLAY_BYTES = 1024 * 1024;

/** How an exec ended. */
export interface ExecExit {
  /** 0–255; undefined where a signal ended it. */
  exitCode?: number;
  /** `SIGKILL`, … */
  signal?: string;
  /** Wall-clock ms from spawn to exit, by the guest's monotonic clock. */
  durationMs: number;
  /** The agent killed it because `timeoutMs` was over. */
  timedOut: boolean;
}

/** Body of `POST /execs/:id/signal`. */
export interface SignalRequest {
  /** `SIGTERM`, … */
  signal: string;
  /**
   * false (default): the process group of the exec's first process, as a terminal's Ctrl-C does.
   * true: every process that descends from it, daemons included.
   */
  tree?: boolean;
}

/** One exec, as the list shows it. Finished ones stay listed for a while. */
export interface ExecInfo {
  id: string;
  pid: number;
  /** argv, or `[shell line]`. Environment is never listed. */
  command: readonly string[];
  user: string;
  cwd: string;
  tag?: string;
  /** ms since the epoch, guest clock. */
  startedAtMs: number;
  running: boolean;
  exit?: ExecExit;
}

/** Body of `POST /renew`: what makes a copy of a guest a machine of its own. */
export interface RenewSpec {
  /** Base64 of 32 to 4096 bytes, for the kernel's random generator. */
  entropy: string;
  /** Wall clock, ms since the epoch. */
  unixMs: number;
  hostname: string;
  /** 32 hex digits: machine-id(5). */
  machineId: string;
  /** A UUID, for /proc/sys/kernel/random/boot_id. */
  bootId: string;
  /** Whether its disk outlives it: all is written there before the answer. */
  durable: boolean;
  /** As of `POST /network`. Undefined: left as it is. */
  network?: NetworkSpec;
}

/** Body of `POST /network`: what becomes of the VM's network device. */
export type NetworkSpec = NetworkDown | NetworkUp;

/** The interface goes down and has no address. */
export interface NetworkDown {
  up: false;
}

/**
 * The interface has this and nothing else: addresses, routes and neighbours from before are gone, and with
 * them the connections.
 */
export interface NetworkUp {
  up: true;
  /** Default: as it is. */
  mac?: string;
  /** IPv4. */
  address: string;
  /** Bits of the network, 1–32; 31 is a network of two (RFC 3021). */
  prefix: number;
  /** IPv4 of the other end of a point-to-point link; `prefix` is that of the peer then. */
  peer?: string;
  /** IPv4 that the default route leads to; it need not be of the network. Default: no such route. */
  gateway?: string;
  /** Its MAC address, so that nobody has to be asked, and nobody else can answer. */
  gatewayMac?: string;
  /** IPv4 of name servers, at most 3 (resolv.conf(5)). Empty: /etc/resolv.conf is left as it is. */
  dns: readonly string[];
  /** Largest packet, bytes. Default: as it is. */
  mtu?: number;
  /** Default: IPv6 is off on the interface, and on those that come later. */
  v6?: NetworkV6;
}

/**
 * IPv6 of an interface that needs no neighbour discovery: it has this address and no link-local one, asks
 * for no router and heeds none.
 */
export interface NetworkV6 {
  address: string;
  /** Bits of the network, 1–128; 127 is a network of two (RFC 6164). */
  prefix: number;
  /** What the default route leads to; it need not be of the network. */
  gateway: string;
  /** Its MAC address, which nobody is asked for. */
  gatewayMac: string;
}

export interface PingReply {
  agentVersion: string;
  protocol: number;
  /** Node's version in the guest. */
  node: string;
  bootId: string;
}

/** What `GET /status` tells. */
export interface GuestStatus {
  uptimeSeconds: number;
  memory: { totalBytes: number; availableBytes: number };
  /** 1, 5 and 15 minutes. */
  load: readonly [number, number, number];
  processes: number;
  disk: { totalBytes: number; availableBytes: number };
  /** The agent's own resident set. */
  agentRssBytes: number;
  execs: number;
  unixMs: number;
}

/** What `POST /thaw` tells. */
export interface ThawReply {
  /** How long all stood still, ms of the guest's clock, which stands still with the vCPUs; 0: it did not. */
  stoodMs: number;
}

/** Body of every error reply. */
export interface ErrorReply {
  error: { code: string; message: string };
}

/** Limits that both ends enforce. */
export const LIMITS = {
  /** Longest exec spec (argv, env and all), bytes of JSON. */
  specBytes: 1024 * 1024,
  /** Longest JSON body of any other request or reply. */
  jsonBytes: 1024 * 1024,
  /** Largest payload of one output frame. */
  frameBytes: 256 * 1024,
  /** HTTP/2 streams open at once on one connection. */
  streams: 256,
  /** Header list of one request or reply, bytes. */
  headerBytes: 16 * 1024,
  /** Largest {@link ExecSpec.replayBytes}. */
  replayBytes: 16 * 1024 * 1024,
  /** Replay buffers of all execs together; those of the execs that ended first go first. */
  totalReplayBytes: 64 * 1024 * 1024,
  /** Bytes of seed in one `POST /entropy` or `POST /renew` … */
  entropyBytes: 4096,
  /** … and fewest: fewer could be guessed. */
  minEntropyBytes: 32,
  /** Name servers that the C library asks (MAXNS of resolv.h). */
  dnsServers: 3,
  /** What an interface with IPv4 takes at least, one with IPv6 (RFC 8200), and Linux at most, bytes. */
  minMtuBytes: 68,
  minV6MtuBytes: 1280,
  maxMtuBytes: 65_535,
  /** Latest time that a clock is set to: the year 2200. Beyond it a clock is a mistake. */
  unixMs: 7_258_118_400_000,
  /** Execs running at once in one guest. */
  execs: 1024,
  /** Finished execs that stay listed. */
  finishedExecs: 128,
} as const;

/** A request's body, or the spec of an exec, is whole after this long, or its stream is reset. */
export const BODY_TIMEOUT_MS = 30_000;

/** A connection has reached HTTP/2 after this long, or the agent closes it. */
export const HELLO_TIMEOUT_MS = 60_000;

/** Flow-control window of one stream: what a peer may send before the reader took any. */
export const STREAM_WINDOW_BYTES = 512 * 1024;

/**
 * What the guest may send on all streams together: that of each, so that execs whose output nobody
 * reads never hold up a ping or another exec.
 */
export const HOST_WINDOW_BYTES = LIMITS.streams * STREAM_WINDOW_BYTES;

/**
 * What the host may send on all streams together. Node's HTTP/2 does not read while a write of its own
 * waits for the socket. With large windows both ways, two ends that write would wait for each other for
 * ever; so the host takes its writes into memory at once, and this bounds how many (see
 * `src/guest/wire.ts`).
 */
export const GUEST_WINDOW_BYTES = 8 * 1024 * 1024;

/** How both ends set up HTTP/2 (options of Node's `http2`). */
export const HTTP2_OPTIONS = {
  settings: {
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxConcurrentStreams: LIMITS.streams,
    maxHeaderListSize: LIMITS.headerBytes,
    enablePush: false,
  },
  maxHeaderListPairs: 32,
  maxSendHeaderBlockLength: LIMITS.headerBytes,
  maxSettings: 16,
  maxOutstandingPings: 4,
  maxReservedRemoteStreams: 0,
  maxSessionInvalidFrames: 16,
  maxSessionRejectedStreams: 16,
  /** MiB: headers, settings and queues of one session, besides the streams' own data. */
  maxSessionMemory: 32,
} as const;
