/** Streams of commands that are open while the VM is put back to a snapshot: none may hang. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandHandle } from '../../src/vm/command-types.ts';
import type { Vm } from '../../src/vm/index.ts';
import { manyTimes, type SoakOptions } from './at-once.ts';

/** Every wait ends within this long after the restore, ms: in other hands it is noticed by a poll of two seconds. */
const BOUND_MS = 15_000;
/** A stream's first data, ms: some are started at once, on one core. */
const DATA_MS = 60_000;
/** More than any pipe and window between here and a command that reads nothing. */
const UNREAD_BYTES = 8 * 2 ** 20;
/** How it is told. */
const NAMED = 'ERR_VM_RESTORED';

/** Prints a line now and then, and each line that it is sent; no process is started for that. */
const TALKER = `
while :; do
  if IFS= read -r -t 1 line; then echo "got $rest$line"; rest=
  elif [ $? -gt 128 ]; then rest="$rest$line"; echo tick
  else exit 0; fi
done`;

/** Prints more than is taken from it, but no faster than that the others get on. */
const FLOOD = `
while :; do
  printf '%16384s\\n' x
  IFS= read -r -t 0.1 line
  [ $? -gt 128 ] || exit 0
done`;

/** What a stream does: `deaf` reads no stdin, `flood` prints more than its listener takes. */
const KINDS = {
  talker: ['bash', '-c', TALKER],
  echo: ['cat'],
  deaf: ['sh', '-c', 'echo deaf; exec sleep 99999'],
  flood: ['bash', '-c', FLOOD],
} as const;
type Kind = keyof typeof KINDS;
/** Of eight streams. */
const MIX: readonly Kind[] = [
  'talker',
  'talker',
  'talker',
  'echo',
  'echo',
  'echo',
  'deaf',
  'flood',
];

interface Stream {
  readonly kind: Kind;
  readonly handle: CommandHandle;
  /** Resolves when something was heard that begins so. */
  readonly heard: (text: string) => Promise<void>;
}

/** What a run of restores has shown. */
export interface RestoreReport {
  readonly restores: number;
  readonly streams: number;
  /** ms from the end of the restore to the last wait's end, the worst. */
  readonly lastEndMs: number;
  /** ms of a new command after a restore, the worst. */
  readonly nextExecMs: number;
  /** Nothing, where all is well. */
  readonly faults: readonly string[];
}

/**
 * Half of the streams are of before the snapshot, and taken up again after each restore; half are started
 * anew. Of these, some are in other hands.
 * @param o.other the same VM in other hands, with a channel of its own
 * @throws whatever `vm.snapshots` and `vm.commands` throw
 */
export async function soakRestores(
  vm: Vm,
  o: SoakOptions & { streams: number; other?: Vm | undefined },
): Promise<RestoreReport> {
  const { signal, streams, other } = o;
  const faults: string[] = [];
  let [lastEndMs, nextExecMs] = [0, 0];
  const lasting = Math.floor(streams / 2);
  const first = await Promise.all(
    Array.from({ length: lasting }, (_, n) => open(vm, kindOf(n), undefined, signal)),
  );
  await vm.snapshots.create('streaming', { signal });
  const pids = first.map(({ handle, kind }) => ({ pid: handle.pid, kind }));
  await Promise.all(first.map(({ handle }) => handle.disconnect()));
  const restores = await manyTimes({ ...o, atOnce: 1 }, async (restore) => {
    const old = await Promise.all(pids.map(({ pid, kind }) => open(vm, kind, pid, signal)));
    const fresh = await Promise.all(
      Array.from({ length: streams - lasting }, (_, n) =>
        open(other !== undefined && n % 4 === 0 ? other : vm, kindOf(n), undefined, signal),
      ),
    );
    const all = [...old, ...fresh];
    const mute = await muteAmong(all);
    if (mute.length > 0)
      throw new Error(`restore ${restore}: nothing was heard of ${mute.join(', ')}`);
    const waits = all.flatMap((stream) => waitsOf(stream));
    await delay(restore % 3 === 0 ? 0 : 200, undefined, { signal });
    await vm.snapshots.restore('streaming', { signal });
    const restoredAt = performance.now();
    for (const { what, code } of waits) {
      const leftMs = BOUND_MS - (performance.now() - restoredAt);
      const told = await within(code, Math.max(0, leftMs), 'nothing');
      if (told !== NAMED) faults.push(`restore ${restore}: ${what} was told ${told}`);
    }
    lastEndMs = Math.max(lastEndMs, performance.now() - restoredAt);
    const asked = performance.now();
    const { stdout } = await vm.commands.run(['echo', 'alive'], { signal, timeoutMs: BOUND_MS });
    if (stdout !== 'alive\n') faults.push(`restore ${restore}: a new command said ${stdout}`);
    nextExecMs = Math.max(nextExecMs, performance.now() - asked);
  });
  await vm.snapshots.delete('streaming', { signal });
  const running = await vm.commands.list({ signal });
  await Promise.all(running.map(({ pid }) => vm.commands.kill(pid, { signal })));
  return { restores, streams, lastEndMs, nextExecMs, faults };
}

function kindOf(n: number): Kind {
  return MIX[n % MIX.length] ?? 'talker';
}

/** Starts a stream, or takes up the one that has this pid. */
async function open(
  vm: Vm,
  kind: Kind,
  pid: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Stream> {
  let seen = '';
  let onData = (): void => undefined;
  const listener = (text: string): unknown => {
    seen = (seen + text).slice(-1_000);
    onData();
    // One that is told and says no more: its command is held back, and so is the end of its output.
    return kind === 'flood' ? new Promise(() => undefined) : undefined;
  };
  const options = { onStdout: listener, maxOutputBytes: 4_096, signal };
  const handle =
    pid === undefined
      ? await vm.commands.run(KINDS[kind], {
          ...options,
          ...{ background: true, stdin: true, timeoutMs: 0 },
        })
      : await vm.commands.connect(pid, { onStdout: listener, maxOutputBytes: 4_096 });
  const heard = (text: string) =>
    new Promise<void>((resolve) => {
      onData = () => (seen.includes(text) ? resolve() : undefined);
      onData();
    });
  return { kind, handle, heard };
}

/** Sends what is answered, and waits for the answer. */
async function converse({ kind, handle, heard }: Stream): Promise<void> {
  if (kind === 'talker' || kind === 'echo') {
    const word = `word-${Math.random()}`;
    await handle.sendStdin(`${word}\n`);
    await heard(word);
  }
  if (kind === 'flood') await heard(' ');
}

/** All that is waited for on a stream, and the code of the error that it ends with. */
function waitsOf({ kind, handle }: Stream): { what: string; code: Promise<string> }[] {
  const waits = { wait: handle.wait({ reject: false }) as Promise<unknown> };
  const all =
    kind === 'deaf' ? { ...waits, stdin: handle.sendStdin('x'.repeat(UNREAD_BYTES)) } : waits;
  return Object.entries(all).map(([name, promise]) => ({
    what: `${name} of a ${kind}, ${handle.pid},`,
    code: promise.then(
      () => 'its end',
      (error: Error & { code?: string }) => error.code ?? error.message,
    ),
  }));
}

/** Streams that do not answer in time. */
async function muteAmong(streams: readonly Stream[]): Promise<string[]> {
  const ends = streams.map(async (stream) => {
    const end = await within(converse(stream), DATA_MS, 'late');
    return end === 'late' ? [`a ${stream.kind}, ${stream.handle.pid}`] : [];
  });
  return (await Promise.all(ends)).flat();
}

/** What comes of it, or `otherwise` after that time. No timer is left that would hold on to it. */
async function within<T, O>(work: Promise<T>, ms: number, otherwise: O): Promise<T | O> {
  const over = new AbortController();
  try {
    const late = delay(ms, otherwise, { signal: over.signal });
    late.catch(() => undefined); // called off
    return await Promise.race([work, late]);
  } finally {
    over.abort();
  }
}
