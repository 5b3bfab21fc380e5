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
    signal?: AbortSignal | undefined;
  }): AsyncIterableIterator<QmpEventOf<E>, undefined>;
}

/** How a job is run. */
export interface RunJobOptions extends WaitOptions {
  /** The job's id. Default: `qmp-agent-` and 12 hex digits. */
  jobId?: string | undefined;
}

type Event = QmpEventOf<'JOB_STATUS_CHANGE' | 'BLOCK_JOB_COMPLETED'>;
type Job = QmpReturn<'query-jobs'>[number];

/**
 * Runs a QEMU job to its end: `ready` ones are completed, `pending` ones finalised, concluded ones
 * dismissed. A block job left at `auto-dismiss: true` is gone the moment it ends; its error is then
 * taken from BLOCK_JOB_COMPLETED. Source: qapi/job.json, qapi/block-core.json.
 *
 * @throws as {@link QmpClient.runJob} says.
 */
export async function runJob(
  client: JobClient,
  start: (jobId: string) => Promise<unknown>,
  options: RunJobOptions = {},
): Promise<void> {
  const { signal, timeoutMs, jobId = `qmp-agent-${randomBytes(6).toString('hex')}` } = options;
  signal?.throwIfAborted();
  const expiry = new AbortController();
  const hint = 'Raise timeoutMs; the job was told to cancel.';
  const disarm = armDeadline(`QMP job ${jobId}`, { signal, timeoutMs }, hint, (reason) => {
    expiry.abort(reason);
  });
  // Events are collected from before the start, so that none can be missed.
  const events = watch(client, expiry.signal);
  const started = start(jobId);
  try {
    await Promise.race([started, rejection(expiry.signal)]);
    await follow(client, jobId, events);
  } catch (error) {
    if (expiry.signal.aborted) await cancelJob(client, jobId, started);
    throw error;
  } finally {
    disarm();
    await events.return?.();
  }
}

function watch(client: JobClient, signal?: AbortSignal): AsyncIterableIterator<Event, undefined> {
  return client.events({ names: ['JOB_STATUS_CHANGE', 'BLOCK_JOB_COMPLETED'], signal });
}

/** Follows a job until it is gone. */
async function follow(
  client: JobClient,
  jobId: string,
  events: AsyncIterable<Event>,
): Promise<void> {
  let blockJobError: string | undefined;
  for await (const event of events) {
    if (event.event === 'BLOCK_JOB_COMPLETED') {
      if (event.data.device === jobId) blockJobError = event.data.error;
      continue;
    }
    if (event.data.id !== jobId) continue;
    switch (event.data.status) {
      case 'ready':
        await tolerant(client.execute('job-complete', { id: jobId }));
        break;
      case 'pending':
        // Jobs with auto-finalize pass through here by themselves; QEMU then refuses, to no harm.
        await tolerant(client.execute('job-finalize', { id: jobId }));
        break;
      case 'concluded':
        await conclude(client, jobId);
        return;
      case 'null':
        if (blockJobError !== undefined) throw jobError(jobId, 'block job', blockJobError);
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
  throw closedByUs(`QMP job ${jobId}`);
}

/** Reads the outcome of a concluded job, then dismisses it. */
async function conclude(client: JobClient, jobId: string): Promise<void> {
  const job = await findJob(client, jobId);
  // Where it is gone, QEMU dismissed it itself, or another client did; its outcome is lost to us.
  if (!job) return;
  await tolerant(client.execute('job-dismiss', { id: jobId }));
  if (job.error !== undefined) throw jobError(jobId, job.type, job.error);
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
  const events = watch(client, signal);
  try {
    await Promise.race([started, rejection(signal)]);
    await tolerant(client.execute('job-cancel', { id: jobId }));
    const job = await findJob(client, jobId);
    if (job?.status === 'concluded') await conclude(client, jobId);
    else if (job) await follow(client, jobId, events);
  } catch {
    // A job that failed to start, or ended with an error, or does not end: nothing is left to do.
  } finally {
    await events.return?.();
  }
}

async function findJob(client: JobClient, jobId: string): Promise<Job | undefined> {
  const jobs = await client.execute('query-jobs');
  return jobs.find(({ id }) => id === jobId);
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

function jobError(jobId: string, jobType: string, error: string): QmpJobError {
  return new QmpJobError(`QEMU job ${jobId} (${jobType}): ${error}`, {
    jobId,
    jobType,
    hint: "Read the job's error above; for a full disk free space, then start it anew.",
  });
}
