/** Execs on HTTP/2 streams: spec and stdin in, output frames out, back-pressure both ways. */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { ByteCollector } from './byte-collector.ts';
import type { Exec, Subscriber } from './exec.ts';
import type { Execs } from './execs.ts';
import { FRAME, frameHead, jsonFrame, truncatedFrame, type StartedFrame } from './frames.ts';
import { BODY_TIMEOUT_MS, HOLD_START_MS, LIMITS, SPEC_HEADER, type ExecSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';
import { parseExecSpec } from './spec.ts';
import { feed } from './stdin-feed.ts';

/** `POST /execs`: reads the spec, starts, then feeds stdin and sends output until both are done. */
export async function receiveExec(
  execs: Execs,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
): Promise<void> {
  const { spec, rest } = specInHeader(headers) ?? (await readSpec(stream));
  await execs.unheld();
  if (stream.destroyed) return; // this is a copy of the guest in which it was asked for
  const exec = await execs.start(spec);
  if (stream.destroyed) {
    exec.signal('SIGKILL', true); // whoever asked for it gave up before it had a name
    return;
  }
  stream.once('close', () => execs.starterGone(exec));
  sendExecOutput(exec, stream, spec.holdStart);
  if (exec.stdin) feed(stream, exec.stdin, rest, true);
  else stream.resume();
}

/**
 * Sends what is kept, then what comes, then the end.
 * @param holdStart see {@link ExecSpec.holdStart}; only where nothing is kept yet
 */
export function sendExecOutput(exec: Exec, stream: ServerHttp2Stream, holdStart = false): void {
  const started = jsonFrame(FRAME.started, { id: exec.id, pid: exec.pid } satisfies StartedFrame);
  let isBegun = false;
  const begin = (): void => {
    if (isBegun || stream.destroyed) return;
    isBegun = true;
    stream.respond({ ':status': 200 });
    stream.write(started);
  };
  const late = holdStart ? setTimeout(begin, HOLD_START_MS) : undefined;
  if (!holdStart) begin();
  if (exec.replay.droppedBytes > 0) stream.write(truncatedFrame(exec.replay.droppedBytes));
  for (const { type, data } of exec.replay.pieces()) writeOutput(stream, type, data);
  const subscriber: Subscriber = {
    output(type, data) {
      begin();
      return writeOutput(stream, type, data);
    },
    finished(exit) {
      clearTimeout(late);
      const last = jsonFrame(FRAME.exit, exit);
      if (!isBegun && !stream.destroyed) {
        stream.respond({ ':status': 200 });
        stream.end(Buffer.concat([started, last])); // all of it in one write
      } else {
        stream.end(last);
      }
    },
  };
  stream.on('drain', () => exec.resume(subscriber));
  stream.once('close', () => {
    clearTimeout(late);
    exec.unsubscribe(subscriber);
  });
  exec.subscribe(subscriber);
}

/** `POST /execs/:id/stdin`. */
export async function writeStdin(
  exec: Exec,
  stream: ServerHttp2Stream,
  eof: boolean,
): Promise<void> {
  const { stdin } = exec;
  if (!stdin?.writable) throw new RequestError('EPIPE', `exec ${exec.id} has no open stdin`, 409);
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

const LENGTH_BYTES = 4;

/** @throws RequestError `EINVAL` */
function specInHeader(headers: IncomingHttpHeaders): { spec: ExecSpec; rest: Buffer } | undefined {
  const json = headers[SPEC_HEADER];
  return typeof json === 'string'
    ? { spec: parseExecSpec(json), rest: Buffer.alloc(0) }
    : undefined;
}

/** The spec, and what came behind it: stdin. Leaves the stream paused. */
async function readSpec(stream: ServerHttp2Stream): Promise<{ spec: ExecSpec; rest: Buffer }> {
  const { json, rest } = await readSpecBytes(stream);
  return { spec: parseExecSpec(json.toString('utf8')), rest };
}

/** u32 length, JSON. */
function readSpecBytes(stream: ServerHttp2Stream): Promise<{ json: Buffer; rest: Buffer }> {
  const body = new ByteCollector();
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), BODY_TIMEOUT_MS);
    const settle = (action: () => void) => {
      clearTimeout(deadline);
      stream.pause();
      stream.off('data', onData);
      stream.off('end', onEnd);
      stream.off('close', onEnd);
      action();
    };
    const onEnd = () => settle(() => reject(new RequestError('EINVAL', 'the spec is cut off')));
    const onData = (chunk: Buffer) => {
      body.push(chunk);
      const bytes = body.bytes();
      const end = specEnd(bytes);
      if (end instanceof RequestError) settle(() => reject(end));
      else if (end !== undefined && end <= bytes.length) {
        const json = bytes.subarray(LENGTH_BYTES, end);
        settle(() => resolve({ json, rest: bytes.subarray(end) }));
      }
    };
    stream.on('data', onData);
    stream.once('end', onEnd);
    stream.once('close', onEnd);
  });
}

/** Where the spec ends in the body, once its length is known. */
function specEnd(body: Buffer): number | RequestError | undefined {
  if (body.length < LENGTH_BYTES) return undefined;
  const length = body.readUInt32BE(0);
  if (length <= LIMITS.specBytes) return LENGTH_BYTES + length;
  const message = `the spec has ${length} bytes; at most ${LIMITS.specBytes}`;
  return new RequestError('E2BIG', message, 413);
}
