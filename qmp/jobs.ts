import { randomBytes } from 'node:crypto';
import { QmpCommandError, QmpJobError } from '../src/errors.ts';
import { armDeadline } from './deadline.ts';
import type { WaitOptions } from './deadline.ts';
import { closedByUs } from './event-hub.ts';
import { JOB_CANCEL_TIMEOUT_MS } from './limits.ts';
import type {
  ExecuteParameters,
  QmpCommandName,
  QmpEventName,
  QmpEventOf,
  QmpReturn,
} from './types.ts';

/** What {@link runJob} needs of a client. */
export interface JobClient {
  execute<C extends QmpCommandName>(
    command: C,
    ...rest: ExecuteParameters<C>
  ): Promise<QmpReturn<C>>;
  events<E extends QmpEventName>(options: {
    names: readonly E[];
    signal: AbortSignal;
  }): AsyncIterableIterator<QmpEventOf<E>, undefined>;
}

const EVENTS = ['JOB_STATUS_CHANGE', 'BLOCK_JOB_COMPLETED', 'BLOCK_JOB_CANCELLED'] as const;

type Event = QmpEventOf<(typeof EVENTS)[number]>;

/** One job, and for how long we care. */
interface JobContext {
  readonly client: JobClient;
  readonly jobId: string;
  readonly signal: AbortSignal;
}

/** How a job ended. */
interface Outcome {
  readonly type: string;
  readonly error?: string | undefined;
}

/**
 * Runs a QEMU job to its end: `ready` ones are completed, `pending` ones finalised, concluded ones
 * dismissed. A block job left at `auto-dismiss: true` is gone the moment it ends; its outcome is
 * then taken from the block job's own event, which comes first. Source: qapi/job.json,
 * qapi/block-core.json, job.c.
 *
 * @throws as {@link QmpClient.runJob} says.
 */
export async function runJob(
  client: JobClient,
  start: (jobId: string) => Promise<unknown>,
  options: WaitOptions = {},
): Promise<void> {
  options.signal?.throwIfAborted();
  const jobId = `qmp-agent-${randomBytes(6).toString('hex')}`;
  const expiry = new AbortController();
  const hint = 'Raise timeoutMs; the job was told to cancel.';
  const disarm = armDeadline(`QMP job ${jobId}`, options, hint, (reason) => {
    expiry.abort(reason);
  });
  const context = { client, jobId, signal: expiry.signal };
  // Events are collected from before the start, so that none can be missed.
  const events = watch(context);
  // A start that throws at once rejects as any other.
  const started = Promise.resolve(jobId).then(start);
  try {
    await Promise.race([started, rejection(expiry.signal)]);
    await follow(context, events);
  } catch (error) {
    if (!(error instanceof QmpJobError)) await cancelJob(client, jobId, started);
    throw error;
  } finally {
    disarm();
    await events.return?.();
  }
}

function watch({ client, signal }: JobContext): AsyncIterableIterator<Event, undefined> {
  return client.events({ names: EVENTS, signal });
}

/** Follows a job until it is gone. */
async function follow(context: JobContext, events: AsyncIterable<Event>): Promise<void> {
  const { client, jobId: id, signal } = context;
  let blockJob: Outcome | undefined;
  for await (const { event, data } of events) {
    if (event !== 'JOB_STATUS_CHANGE') {
      if (data.device !== id) continue;
      const error = event === 'BLOCK_JOB_CANCELLED' ? 'Operation canceled' : data.error;
      blockJob = { type: data.type, error };
      continue;
    }
    if (data.id !== id) continue;
    switch (data.status) {
      case 'ready':
        await tolerant(client.execute('job-complete', { id }, { signal }));
        break;
      case 'pending':
        // Jobs with auto-finalize pass through here by themselves; QEMU then refuses, to no harm.
        await tolerant(client.execute('job-finalize', { id }, { signal }));
        break;
      case 'concluded':
      case 'null':
        await dismiss(context, blockJob);
        return;
      case 'undefined':
      case 'created':
      case 'running':
      case 'paused':
      case 'standby':
      case 'waiting':
      case 'aborting':
        break; // it goes on
    }
  }
  throw closedByUs(`QMP job ${id}`);
}

/** Dismisses a job that has ended, and throws where it ended with an error. */
async function dismiss(
  { client, jobId: id, signal }: JobContext,
  blockJob: Outcome | undefined,
): Promise<void> {
  const jobs = await client.execute('query-jobs', {}, { signal });
  const job = jobs.find((candidate) => candidate.id === id);
  if (job) await tolerant(client.execute('job-dismiss', { id }, { signal }));
  const { type, error } = job ?? blockJob ?? {};
  if (error === undefined) return;
  throw new QmpJobError(`QEMU job ${id} (${type}): ${error}`, {
    jobId: id,
    jobType: type ?? '',
    hint: "Read the job's error above; for a full disk free space, then start it anew.",
  });
}

/**
 * Cancels a job and sees it off, within {@link JOB_CANCEL_TIMEOUT_MS}. Never rejects: the caller
 * has an error to throw that tells more. Some jobs (`blockdev-create`) look at the request only
 * when they are done.
 */
async function cancelJob(
  client: JobClient,
  jobId: string,
  started: Promise<unknown>,
): Promise<void> {
  const signal = AbortSignal.timeout(JOB_CANCEL_TIMEOUT_MS);
  const context = { client, jobId, signal };
  const events = watch(context);
  try {
    // Whatever came of the start: QEMU may have the job.
    await Promise.race([started.catch(() => undefined), rejection(signal)]);
    await tolerant(client.execute('job-cancel', { id: jobId }, { signal }));
    const job = (await client.execute('query-jobs', {}, { signal })).find(({ id }) => id === jobId);
    if (job?.status === 'concluded') await dismiss(context, undefined);
    else if (job) await follow(context, events);
  } catch {
    // The job ended with an error, as cancelled ones do; or nothing more can be done about it.
  } finally {
    await events.return?.();
  }
}

/** A job may move on between its event and our command, which QEMU then refuses: no harm done. */
async function tolerant(command: Promise<unknown>): Promise<void> {
  try {
    await command;
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
  }
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = (): void => {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- signal.reason may be anything
      reject(signal.reason);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
