import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DiskQuotaError, HostError } from '../../../src/errors.ts';
import { extendTo, usedBytes } from '../../../src/storage/index.ts';
import { reachedQuota, requireRoom } from '../../../src/vm/disk-quota.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qa-quota-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('a disk that found no space', () => {
  it('has reached its quota, where it has one and the host has space', () => {
    const error = reachedQuota({ vmId: '0123456789ab', path: dir, quotaBytes: 2 ** 28 });
    expect(error).toBeInstanceOf(DiskQuotaError);
    expect(error).toMatchObject({
      ...{ code: 'ERR_DISK_QUOTA', vmId: '0123456789ab', quotaBytes: 2 ** 28 },
      message: expect.stringContaining('quota of 256 MiB'),
      hint: expect.stringMatching(/snapshot delete 0123456789ab.*qmp-agent resume 0123456789ab/),
    });
  });

  it('is the host’s matter without one', () => {
    expect(
      reachedQuota({ ...{ vmId: '0123456789ab', path: dir }, quotaBytes: undefined }),
    ).toBeUndefined();
  });
});

describe('the file of a disk with a quota', () => {
  it('is as long as that, takes no space for it, and is never cut', async () => {
    const path = join(dir, 'disk.qcow2');
    await writeFile(path, 'head');
    await extendTo(path, 2 ** 30);
    expect((await stat(path)).size).toBe(2 ** 30);
    expect(await usedBytes(path)).toBeLessThan(2 ** 20);
    await extendTo(path, 0);
    expect((await stat(path)).size).toBe(2 ** 30);
  });

  it('must be there', async () => {
    await expect(extendTo(join(dir, 'none'), 1)).rejects.toMatchObject({ code: 'ERR_STATE_DIR' });
  });
});

describe('a snapshot', () => {
  const place = (quotaBytes: number | undefined) => ({
    ...{ vmId: '0123456789ab', path: join(dir, 'none'), quotaBytes },
  });

  it('needs as much space within the quota as QEMU holds memory', async () => {
    await requireRoom(place(undefined), process.pid);
    await requireRoom(place(2 ** 40), process.pid);
    const refused = requireRoom(place(2 ** 20), process.pid);
    await expect(refused).rejects.toThrow(DiskQuotaError);
    await expect(refused).rejects.not.toThrow(HostError);
    await expect(refused).rejects.toThrow(/within the disk quota of 1 MiB of VM 0123456789ab/);
  });
});
