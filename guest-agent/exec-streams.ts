/** Execs on HTTP/2 streams: spec and stdin in, output frames out, back-pressure both ways. */
import type { ServerHttp2Stream } from 'node:http2';
import type { Writable } from 'node:stream';
import type { Exec, Subscriber } from './exec.ts';
import type { Execs } from './execs.ts';
import { FRAME, frameHead, jsonFrame, truncatedFrame, type StartedFrame } from './frames.ts';
import { LIMITS, type ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { parseExecSpec } from './spec.ts';

/** `POST /execs`: reads the spec, starts, then feeds stdin and sends output until both are done. */
export async function receiveExec(execs: Execs, stream: ServerHttp2Stream): Promise<void> {
  const { spec, rest } = await readSpec(stream);
  const exec = await execs.start(spec);
  if (stream.destroyed) {
    exec.starterGone();
    return;
  }
  stream.once('close', () => {
    if (!exec.exit) exec.starterGone();
  });
  sendExecOutput(exec, stream);
  if (exec.stdin) feed(stream, exec.stdin, rest, true);
  else stream.resume();
}

/** Sends what is kept, then what comes, then the end. */
export function sendExecOutput(exec: Exec, stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.write(jsonFrame(FRAME.started, { id: exec.id, pid: exec.pid } satisfies StartedFrame));
  if (exec.replay.droppedBytes > 0) stream.write(truncatedFrame(exec.replay.droppedBytes));
  for (const { type, data } of exec.replay.pieces()) writeOutput(stream, type, data);
  const subscriber: Subscriber = {
    output: (type, data) => writeOutput(stream, type, data),
    finished: (exit) => void stream.end(jsonFrame(FRAME.exit, exit)),
  };
  stream.on('drain', () => exec.resume(subscriber));
  stream.once('close', () => exec.unsubscribe(subscriber));
  exec.subscribe(subscriber);
}

/** `POST /execs/:id/stdin`. */
export async function writeStdin(
  exec: Exec,
  stream: ServerHttp2Stream,
  eof: boolean,
): Promise<void> {
  const { stdin } = exec;
  if (!stdin || exec.exit)
    throw new RequestError('EPIPE', `exec ${exec.id} has no open stdin`, 409);
  await new Promise<void>((resolve) => {
    stream.once('end', resolve);
    stream.once('close', resolve);
    feed(stream, stdin, Buffer.alloc(0), eof);
  });
}

function writeOutput(stream: ServerHttp2Stream, type: 2 | 3, data: Buffer): boolean {
  if (stream.destroyed) return true;
  stream.cork(); // head and payload in one frame, without copying the payload
  stream.write(frameHead(type, data.length));
  const more = stream.write(data);
  stream.uncork();
  return more;
}

/** Passes a request's body to a process; what the process no longer reads is dropped. */
function feed(stream: ServerHttp2Stream, stdin: Writable, first: Buffer, eof: boolean): void {
  const pass = (chunk: Buffer) => {
    if (!stdin.writable || stdin.write(chunk)) return;
    stream.pause();
  };
  const resume = () => stream.resume();
  stdin.on('drain', resume);
  stdin.once('close', resume);
  stream.on('data', pass);
  stream.resume(); // it was paused on purpose, so a listener alone does not start it
  if (first.length > 0) pass(first);
  stream.once('end', () => {
    stdin.off('drain', resume);
    stdin.off('close', resume);
    if (eof) stdin.end();
  });
}

const LENGTH_BYTES = 4;

/** u32 length, JSON; what follows is stdin. Leaves the stream paused. */
function readSpec(stream: ServerHttp2Stream): Promise<{ spec: ExecSpec; rest: Buffer }> {
  let head: Buffer = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    const settle = (action: () => void) => {
      stream.pause();
      stream.off('data', onData);
      stream.off('end', onEnd);
      stream.off('close', onEnd);
      action();
    };
    const onEnd = () => settle(() => reject(new RequestError('EINVAL', 'the spec is cut off')));
    const onData = (chunk: Buffer) => {
      head = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
      try {
        const end = specEnd(head);
        if (end === undefined || head.length < end) return;
        const spec = parseExecSpec(head.toString('utf8', LENGTH_BYTES, end));
        settle(() => resolve({ spec, rest: head.subarray(end) }));
      } catch (error) {
        settle(() => reject(error));
      }
    };
    stream.on('data', onData);
    stream.once('end', onEnd);
    stream.once('close', onEnd);
  });
}

/** Where the spec ends in the body, once its length is known. */
function specEnd(head: Buffer): number | undefined {
  if (head.length < LENGTH_BYTES) return undefined;
  const length = head.readUInt32BE(0);
  if (length <= LIMITS.specBytes) return LENGTH_BYTES + length;
  const message = `the spec has ${length} bytes; at most ${LIMITS.specBytes}`;
  throw new RequestError('E2BIG', message, 413);
}
