/**
 * A guest, a host and a server behind it in namespaces of their own, joined by veth pairs: what packets cost on
 * their way through the host, with our rules and without. No VM is needed, and its emulation in no figure.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { TAP_GROUP } from '../../nft/index.ts';
import { TimeoutError } from '../errors.ts';
import { DEFAULT_POOL, endpointAt, GATEWAY_MAC, parsePool, TAP_PREFIX } from './endpoint.ts';
import { NetworkNamespace } from './namespace.ts';
import {
  figureProgram,
  type PathPlan,
  tcpFigures,
  tcpServer,
  type TcpFigure,
} from './path-programs.ts';
import { RulesLab } from './rules-lab.ts';

/** TEST-NET-3 (RFC 5737): to our rules, an address like any other. */
const HOST = '203.0.113.1';
const SERVER = '203.0.113.10';
const PACKETS = 20_000;
const TIMEOUT_MS = 60_000;
/** Node starts in half a second; on an emulated machine in many times that. */
const SERVER_START_MS = 60_000;
/** From SIGKILL to the server's end. */
const SERVER_END_MS = 10_000;

const PLAN: PathPlan = {
  ...{ address: SERVER, port: 80 },
  ...{ roundTrips: 200, transferMib: 128, connections: 300 },
};

/** Takes datagrams, too. */
const SERVER_PROGRAM = `
require('node:dgram').createSocket('udp4').bind(443, '${SERVER}', () => {${tcpServer(PLAN)}
});`;

/** Packets are written without libuv, whose part would be larger than the kernel's. */
const GUEST_PROGRAM = figureProgram(`
  async packet() {
    const socket = require('node:dgram').createSocket('udp4');
    socket.connect(443, '${SERVER}');
    await require('node:events').once(socket, 'connect');
    const { writeSync } = require('node:fs');
    const bytes = Buffer.alloc(64);
    const send = (n) => {
      for (let i = 0; i < n; i++) {
        try { writeSync(socket._handle.fd, bytes); } catch (e) { if (e.code !== 'EAGAIN') throw e; }
      }
    };
    send(${PACKETS / 10});
    const before = process.cpuUsage();
    send(${PACKETS});
    const { user, system } = process.cpuUsage(before);
    socket.close();
    return (user + system) / ${PACKETS};
  },${tcpFigures(PLAN)}`);

/** `packet`: µs of processor time from the guest's write to the server's socket. */
export type PathFigure = 'packet' | TcpFigure;

/** See above. Gone with it: nothing of it is in the host's own namespace. */
export class PathLab implements AsyncDisposable {
  readonly #guest: NetworkNamespace;
  readonly #held: readonly AsyncDisposable[];

  private constructor(guest: NetworkNamespace, held: readonly AsyncDisposable[]) {
    this.#guest = guest;
    this.#held = held;
  }

  /**
   * @param o.vms how many the host has rules for, this guest among them; 0: no rules at all
   * @throws HostError no permission; NetworkRulesError; TimeoutError; the signal's reason. Nothing is left then
   */
  static async open(o: { vms: number; signal?: AbortSignal | undefined }): Promise<PathLab> {
    const held: AsyncDisposable[] = [];
    const make = async (): Promise<NetworkNamespace> => {
      const namespace = await NetworkNamespace.make(o);
      held.unshift(namespace);
      return namespace;
    };
    try {
      const [host, guest, upstream] = [await make(), await make(), await make()];
      await joinUp({ host, guest, upstream }, o);
      const server = spawnServer(upstream);
      held.unshift({ [Symbol.asyncDispose]: () => endServer(server) });
      await serverReady(server, o.signal);
      return new PathLab(guest, held);
    } catch (error) {
      await giveBack(held).catch(() => undefined); // the error is what counts
      throw error;
    }
  }

  /** Takes one figure. */
  async take(figure: PathFigure, o: { signal?: AbortSignal | undefined } = {}): Promise<number> {
    const argv = [process.execPath, '-e', GUEST_PROGRAM, figure];
    return Number(await this.#guest.run(argv, { ...o, timeoutMs: TIMEOUT_MS }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await giveBack(this.#held);
  }
}

async function joinUp(
  { host, guest, upstream }: Record<'host' | 'guest' | 'upstream', NetworkNamespace>,
  { vms, signal }: { vms: number; signal?: AbortSignal | undefined },
): Promise<void> {
  const rules = vms === 0 ? undefined : await RulesLab.open({ signal, namespace: host });
  await rules?.fill(vms - 1, { signal });
  const plain = endpointAt(parsePool(DEFAULT_POOL), 1);
  const vm = rules?.next();
  const { tap, guestAddress, gatewayAddress } = vm ?? plain;
  await host.ip(
    [
      `link add ${tap} type veth peer name eth0 netns ${guest.path}`,
      `link set dev ${tap} group ${TAP_GROUP} address ${GATEWAY_MAC}`,
      `address add ${gatewayAddress}/${TAP_PREFIX} dev ${tap}`,
      `link set dev ${tap} up`,
      `link add up0 type veth peer name eth0 netns ${upstream.path}`,
      `address add ${HOST}/24 dev up0`,
      'link set dev up0 up',
    ],
    { signal },
  );
  await guest.ip(
    [
      ...(vm === undefined ? [] : [`link set dev eth0 address ${vm.mac}`]),
      `address add ${guestAddress}/${TAP_PREFIX} dev eth0`,
      'link set dev eth0 up',
      `route add default via ${gatewayAddress}`,
    ],
    { signal },
  );
  await upstream.ip(
    [
      `address add ${SERVER}/24 dev eth0`,
      'link set dev eth0 up',
      `route add ${DEFAULT_POOL} via ${HOST}`,
    ],
    { signal },
  );
  const sysctl = ['sysctl', '-q', '-w', 'net.ipv4.ip_forward=1'];
  await host.run(sysctl, { signal, timeoutMs: TIMEOUT_MS });
  if (vm !== undefined) await rules?.addRules(vm, { signal });
}

function spawnServer(upstream: NetworkNamespace): ChildProcess {
  const program = [process.execPath, '-e', SERVER_PROGRAM];
  const [file, ...args] = upstream.command(['setpriv', '--pdeathsig', 'KILL', '--', ...program]);
  return spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** Waits until it listens. */
async function serverReady(server: ChildProcess, signal: AbortSignal | undefined): Promise<void> {
  const over = new AbortController();
  const wait = {
    signal: AbortSignal.any([over.signal, ...(signal === undefined ? [] : [signal])]),
  };
  const ended = async () => {
    await once(server, 'close', wait);
    throw new Error('the server of the benchmark ended');
  };
  const late = async () => {
    await delay(SERVER_START_MS, undefined, wait);
    throw new TimeoutError('the server of the benchmark', SERVER_START_MS);
  };
  try {
    await Promise.race([once(server.stdout!, 'data', wait), ended(), late()]);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    over.abort();
  }
}

/** It may have ended by itself. @throws TimeoutError */
async function endServer(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const signal = AbortSignal.timeout(SERVER_END_MS);
  const gone = once(server, 'exit', { signal }).catch(() => {
    throw new TimeoutError('the end of the benchmark’s server', SERVER_END_MS);
  });
  server.kill('SIGKILL');
  await gone;
}

/** All of it, also where some of it resists. @throws the first error */
async function giveBack(held: readonly AsyncDisposable[]): Promise<void> {
  const errors: unknown[] = [];
  for (const one of held) {
    try {
      await one[Symbol.asyncDispose]();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}
