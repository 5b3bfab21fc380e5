/** The network service as others see it: it is there when they ask, whoever started it. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NetworkSetupError, TimeoutError } from '../../errors.ts';
import { askLine } from '../ask-line.ts';
import { LENT_DIR } from '../lent/lent-taps.ts';

/** Node starts in half a second; on an emulated machine in many times that. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** Default of {@link tellService}: it runs already, and looks within some ms. */
const TELL_MS = 10_000;
/** Between two tries to start it: one that starts is not there at once. */
const RESTART_MS = 3_000;
const POLL_MS = 20;
/** With this code it ends that was told to, and is needed still: it is to be started anew. (None of node's own.) */
export const NEEDED = 20;
const MAX_REPLY_CHARS = 4_096;

/**
 * Starts the service and starts it anew when it fails, until it ends by itself as nobody needs it, or has
 * failed five times within a minute each: whoever needs it then starts a new one. (It is needed by entries, and by
 * users to whom it lends taps.) There is one per directory
 * ($1). One that ends in order and is needed (code {@link NEEDED}) comes again however often: that is no failure.
 * A shell takes 1 MB; its own end leaves the service running. Of lent taps nothing is left with the last of them,
 * the directory neither ($2): who has waited for a lock that is taken away is told by its name, and tries anew; what serves without a shell has its lock still.
 */
export const SUPERVISOR = `
dir=$1; clean=$2; shift 2; umask 077
mkdir -p "$dir"
exec 9>>"$dir/supervisor.lock"
flock -n 9 && [ "$dir/supervisor.lock" -ef /proc/self/fd/9 ] || exit 0
exec >"$dir/service.log" 2>&1
end() {
  [ "$clean" = yes ] && flock -n "$dir/service.lock" rm -f "$dir/service.lock" "$dir/service.log" &&
    rm -f "$dir/supervisor.lock" && rmdir "$dir"
  exit 0
}
failures=0
while [ $failures -lt 5 ]; do
  began=$(date +%s)
  "$@" 9>&- && end
  code=$?
  [ $code -eq ${NEEDED} ] && sleep 1 && continue
  [ $(($(date +%s) - began)) -lt 60 ] && failures=$((failures + 1)) || failures=1
  sleep 1
  ls "$dir" | grep -qE '\\.(json|ended)$|^uid-' || exit 0
done`;

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
    const reply = await ask(dir, o.vmId, {
      timeoutMs: deadline - performance.now(),
      signal: o.signal,
    });
    if (reply === 'ok') return;
    if (reply !== undefined) {
      throw new NetworkSetupError(`the network service cannot serve the VM: ${reply}`, {
        hint: `See ${join(dir, 'service.log')}.`,
        vmId: o.vmId,
      });
    }
    if (performance.now() >= deadline) {
      throw new TimeoutError('the network service', timeoutMs, {
        hint: `It said: ${await lastWords(dir)}`,
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

/**
 * Resolves when the service has looked at the entries of all VMs, or does not run.
 * @throws TimeoutError it does not answer (10 s by default); the signal's reason
 */
export async function tellService(
  dir: string,
  o: { vmId: string; signal?: AbortSignal | undefined; timeoutMs?: number | undefined },
): Promise<void> {
  const timeoutMs = o.timeoutMs ?? TELL_MS;
  const deadline = performance.now() + timeoutMs;
  const reply = await ask(dir, o.vmId, { timeoutMs, signal: o.signal });
  o.signal?.throwIfAborted();
  if (reply === undefined && performance.now() >= deadline) {
    throw new TimeoutError('the network service', timeoutMs, {
      hint: `It said: ${await lastWords(dir)}`,
      vmId: o.vmId,
    });
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
async function ask(
  dir: string,
  vmId: string,
  o: { timeoutMs: number; signal: AbortSignal | undefined },
): Promise<string | undefined> {
  const bounds = { ...o, maxChars: MAX_REPLY_CHARS };
  const { text } = await askLine(serviceSocket(dir), `sync ${vmId}`, bounds);
  return text.endsWith('\n') ? text.trim() : undefined;
}

/** The last line of its log. */
async function lastWords(dir: string): Promise<string> {
  const text = await readFile(join(dir, 'service.log'), 'utf8').catch(() => '');
  return text.trim().split('\n').at(-1) || 'nothing';
}

/** Its own session, no terminal, none of our descriptors. */
function startService(dir: string): void {
  const node = [process.execPath, ...loader(), mainPath(), dir];
  const clean = dir === LENT_DIR ? 'yes' : 'no';
  const child = spawn('/bin/sh', ['-c', SUPERVISOR, 'qmp-agent-network', dir, clean, ...node], {
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
