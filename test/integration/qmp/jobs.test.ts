import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { TestQemu } from './qemu.ts';
import { StuckCommand } from './stuck-command.ts';

const SIZE = 16 * 1024 * 1024;

let qemu: TestQemu;
let client: QmpClient;
/** The jobs' states, as `status`, since the test began. */
let states: string[] = [];

beforeAll(async () => {
  qemu = await TestQemu.start((dir) => {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', join(dir, 'disk.qcow2'), `${SIZE}`]);
    execFileSync('qemu-io', ['-c', 'write -q 0 4M', join(dir, 'disk.qcow2')]);
    const rawFile = (name: string): object => {
      const filename = join(dir, name);
      execFileSync('qemu-img', ['create', '-q', '-f', 'raw', filename, `${SIZE}`]);
      return { driver: 'file', filename };
    };
    const disk = { driver: 'file', filename: join(dir, 'disk.qcow2') };
    // A disk that is full: every write fails.
    const full = {
      driver: 'blkdebug',
      image: rawFile('full.raw'),
      'inject-error': [{ event: 'write_aio', errno: 28, once: false }],
    };
    return [
      ...['-M', 'q35,accel=tcg', '-m', '16', '-S'],
      ...['-blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': 'disk', file: disk })],
      ...['-blockdev', JSON.stringify({ ...rawFile('copy.raw'), 'node-name': 'copy' })],
      ...['-blockdev', JSON.stringify({ driver: 'raw', 'node-name': 'full', file: full })],
    ];
  });
  client = await qemu.connect({
    onLine: (_way, line) =>
      states.push(...(/"JOB_STATUS_CHANGE".*"status": "(\w+)"/.exec(line)?.slice(1) ?? [])),
  });
});
beforeEach(() => {
  states = [];
});
afterAll(async () => {
  await client.close();
  await qemu[Symbol.asyncDispose]();
});

/** No test leaves a job behind. */
async function expectNoJobs(): Promise<void> {
  expect(await client.execute('query-jobs')).toEqual([]);
}

describe('runJob', () => {
  it('runs to the end and dismisses', async () => {
    const filename = join(qemu.dir, 'new.qcow2');
    const create = (options: Parameters<typeof client.execute<'blockdev-create'>>[1]['options']) =>
      client.runJob((id) => client.execute('blockdev-create', { 'job-id': id, options }));
    await create({ driver: 'file', filename, size: 0 });
    await client.execute('blockdev-add', { driver: 'file', 'node-name': 'new', filename });
    await create({ driver: 'qcow2', file: 'new', size: SIZE });
    const info = execFileSync('qemu-img', ['info', '--output=json', '-U', filename]).toString();
    expect(JSON.parse(info)).toMatchObject({ format: 'qcow2', 'virtual-size': SIZE });
    expect(states.filter((status) => status === 'concluded')).toHaveLength(2);
    expect(states.at(-1)).toBe('null');
    await expectNoJobs();
  });

  it('saves, loads and deletes a snapshot of a machine', async () => {
    const nodes = { devices: ['disk'], tag: 'one' };
    const snapshots = async (): Promise<string[]> => {
      const [node] = (await client.execute('query-named-block-nodes', { flat: true })).filter(
        (found) => found['node-name'] === 'disk',
      );
      return (node?.image.snapshots ?? []).map(({ name }) => name);
    };
    await client.runJob((id) =>
      client.execute('snapshot-save', { 'job-id': id, vmstate: 'disk', ...nodes }),
    );
    expect(await snapshots()).toEqual(['one']);
    await client.runJob((id) =>
      client.execute('snapshot-load', { 'job-id': id, vmstate: 'disk', ...nodes }),
    );
    await client.runJob((id) => client.execute('snapshot-delete', { 'job-id': id, ...nodes }));
    expect(await snapshots()).toEqual([]);
    await expectNoJobs();
  });

  it('completes a job that waits for that, and finalises one that waits for that', async () => {
    await client.runJob((id) =>
      client.execute('blockdev-mirror', {
        ...{ 'job-id': id, device: 'disk', target: 'copy', sync: 'full' },
        ...{ 'auto-finalize': false, 'auto-dismiss': false },
      }),
    );
    expect(states).toEqual(expect.arrayContaining(['ready', 'pending', 'concluded', 'null']));
    // The mirror took the disk's place.
    expect(await client.execute('query-named-block-nodes', { flat: true })).toEqual(
      expect.arrayContaining([expect.objectContaining({ 'node-name': 'copy' })]),
    );
    await expectNoJobs();
  });

  it('rejects with what the job says', async () => {
    const load = client.runJob((id) =>
      client.execute('snapshot-load', {
        ...{ 'job-id': id, vmstate: 'disk', devices: ['disk'], tag: 'no-such' },
      }),
    );
    await expect(load).rejects.toMatchObject({
      code: 'ERR_QMP_JOB',
      jobType: 'snapshot-load',
      message: expect.stringContaining("Snapshot 'no-such' does not exist"),
    });
    await expectNoJobs();
  });

  it.each([true, false])('rejects where a block job fails, auto-dismiss %s', async (dismiss) => {
    const backup = client.runJob((id) =>
      client.execute('blockdev-backup', {
        ...{ 'job-id': id, device: 'disk', target: 'full', sync: 'full', 'auto-dismiss': dismiss },
      }),
    );
    await expect(backup).rejects.toMatchObject({
      code: 'ERR_QMP_JOB',
      jobType: 'backup',
      message: expect.stringContaining('No space left on device'),
    });
    await expectNoJobs();
  });

  it('rejects with what the start says', async () => {
    await expect(
      client.runJob((id) =>
        client.execute('blockdev-backup', {
          ...{ 'job-id': id, device: 'nobody', target: 'copy', sync: 'full' },
        }),
      ),
    ).rejects.toMatchObject({ code: 'ERR_QMP_COMMAND', desc: expect.stringContaining('nobody') });
    const thrown = new Error('not even sent');
    await expect(
      client.runJob(() => {
        throw thrown;
      }),
    ).rejects.toBe(thrown);
    await expectNoJobs();
  });

  /** One byte a second. */
  const slowBackup = (id: string): Promise<unknown> =>
    client.execute('blockdev-backup', {
      ...{ 'job-id': id, device: 'disk', target: 'copy', sync: 'full', speed: 1 },
    });

  it('cancels when told to, in time, and when somebody else does', async () => {
    const controller = new AbortController();
    const aborted = client.runJob(slowBackup, { signal: controller.signal });
    await client.waitForEvent('JOB_STATUS_CHANGE', {
      match: ({ data }) => data.status === 'running',
    });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    await expectNoJobs();

    await expect(client.runJob(slowBackup, { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      operation: expect.stringMatching(/^QMP job qmp-agent-[0-9a-f]{12}$/),
    });
    await expectNoJobs();

    const running = client.waitForEvent('JOB_STATUS_CHANGE', {
      match: ({ data }) => data.status === 'running',
    });
    const cancelled = client.runJob(slowBackup);
    cancelled.catch(() => undefined);
    await client.execute('job-cancel', { id: (await running).data.id });
    await expect(cancelled).rejects.toMatchObject({
      code: 'ERR_QMP_JOB',
      message: expect.stringContaining('canceled'),
    });
    await expectNoJobs();
  });

  it('cancels a job whose start was not answered yet', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    await using stuck = await StuckCommand.start(qemu, client);
    const job = client.runJob(slowBackup, { signal: controller.signal });
    controller.abort(reason);
    await stuck.release();
    await expect(job).rejects.toBe(reason);
    expect(states).toEqual(expect.arrayContaining(['running', 'aborting', 'null']));
    await expectNoJobs();
  });

  it('runs several at once', async () => {
    const create = (name: string): Promise<void> =>
      client.runJob((id) =>
        client.execute('blockdev-create', {
          'job-id': id,
          options: { driver: 'file', filename: join(qemu.dir, name), size: SIZE },
        }),
      );
    await Promise.all(Array.from({ length: 10 }, (_, i) => create(`many-${i}`)));
    await expectNoJobs();
  });
});
