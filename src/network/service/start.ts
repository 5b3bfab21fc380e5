/** The network service as others see it: it is there when they ask, whoever started it. */
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NetworkSetupError, TimeoutError } from '../../errors.ts';

/** Node starts in half a second; on an emulated machine in many times that. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** Between two tries to start it: one that starts is not there at once. */
const RESTART_MS = 3_000;
const POLL_MS = 20;
const MAX_REPLY_CHARS = 4_096;

/**
 * Starts the service and starts it anew when it fails, until it ends by itself as nobody needs it. A shell
 * takes 1 MB; its own end leaves the service running.
 */
const SUPERVISOR = `while :; do "$@" && exit 0; sleep 1; done`;

/** @returns path of the socket on which the service listens */
export function serviceSocket(dir: string): string {
  return join(dir, 'service.sock');
}

/**
 * Has the service look at the entries of all VMs. Resolves when it serves them as they are now; starts it
 * where it does not run.
 * @throws NetworkSetupError it cannot serve a VM; TimeoutError; the signal's reason
 */
export async function syncService(
  dir: string,
  o: { vmId: string; signal?: AbortSignal | undefined; timeoutMs?: number | undefined },
): Promise<void> {
  const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const deadline = performance.now() + timeoutMs;
  let startedAt = -Infinity;
  for (;;) {
    o.signal?.throwIfAborted();
    const reply = await ask(dir, o.vmId, deadline - performance.now());
    if (reply === 'ok') return;
    if (reply !== undefined) {
      throw new NetworkSetupError(`the network service cannot serve the VM: ${reply}`, {
        hint: `See ${join(dir, 'service.log')}.`,
        vmId: o.vmId,
      });
    }
    if (performance.now() >= deadline) {
      throw new TimeoutError('the network service', timeoutMs, {
        hint: `See ${join(dir, 'service.log')}.`,
        vmId: o.vmId,
      });
    }
    if (performance.now() - startedAt > RESTART_MS) {
      startedAt = performance.now();
      startService(dir);
    }
    await delay(POLL_MS, undefined, { signal: o.signal }).catch(() => undefined);
  }
}

/** Tells the service that something has changed, where it runs; does not wait for what it makes of it. */
export function nudgeService(dir: string): void {
  const socket = connect(serviceSocket(dir));
  socket.on('error', () => undefined);
  socket.end('sync\n');
  socket.unref();
}

/** Its reply; undefined where it does not run, or ends. */
function ask(dir: string, vmId: string, timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(serviceSocket(dir));
    let text = '';
    const timer = setTimeout(() => socket.destroy(), Math.max(1, timeoutMs));
    socket.setEncoding('utf8');
    socket.on('error', () => undefined);
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > MAX_REPLY_CHARS) socket.destroy();
    });
    socket.once('close', () => {
      clearTimeout(timer);
      resolve(text.endsWith('\n') ? text.trim() : undefined);
    });
    socket.write(`sync ${vmId}\n`);
  });
}

/** Its own session, no terminal, none of our descriptors. */
function startService(dir: string): void {
  const node = [process.execPath, ...loader(), mainPath(), dir];
  const script = `exec >>"$0" 2>&1; ${SUPERVISOR}`;
  const child = spawn('/bin/sh', ['-c', script, join(dir, 'service.log'), ...node], {
    cwd: '/',
    detached: true,
    stdio: 'ignore',
    env: { PATH: process.env['PATH'], HOME: '/nonexistent', LC_ALL: 'C' },
  });
  child.on('error', () => undefined); // told by the wait's end
  child.unref();
}

function mainPath(): string {
  return fileURLToPath(new URL(isSource() ? './main.ts' : './main.js', import.meta.url));
}

/** From its sources, as its tests do, it needs what the tests run with. */
function loader(): string[] {
  if (!isSource()) return [];
  const root = new URL('../../../', import.meta.url);
  return ['--import', fileURLToPath(new URL('node_modules/tsx/dist/loader.mjs', root))];
}

function isSource(): boolean {
  return import.meta.url.endsWith('.ts');
}
