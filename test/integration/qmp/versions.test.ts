/** What differs between QEMU's versions, on the one that is installed: 7.2 here, 10.0 in the lab. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { QmpClient } from '../../../qmp/index.ts';
import { keptSchemas } from '../../../scripts/generate-qapi.ts';
import { TestQemu } from './qemu.ts';

let qemu: TestQemu;
let client: QmpClient;
beforeAll(async () => {
  qemu = await TestQemu.start();
  client = await qemu.connect();
});
afterAll(async () => {
  await client.close();
  await qemu[Symbol.asyncDispose]();
});

let isOld: boolean;
beforeEach((ctx) => {
  const { major, minor } = client.version;
  isOld = major < 7 || (major === 7 && minor <= 2);
  if (!isOld && major < 10) ctx.skip(`QEMU ${major}.${minor} is between those the types know`);
});

describe('what this QEMU lacks', () => {
  it('is named when a command is refused', async () => {
    const [command, known] = isOld
      ? (['x-query-interrupt-controllers', 'in QEMU 10.0, not in older ones'] as const)
      : (['x-query-rdma', 'up to QEMU 7.2, not in newer ones'] as const);
    await expect(client.execute(command)).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errorClass: 'CommandNotFound',
      hint: expect.stringContaining(`${command} is known ${known}`),
    });
    await expect(client.executeRaw('query-xyzzy')).rejects.toMatchObject({
      errorClass: 'CommandNotFound',
      hint: expect.stringContaining('check the spelling'),
    });
  });

  it('is named when an argument or a value is refused, however deep', async () => {
    const refused = isOld
      ? [
          () => client.execute('block-commit', { device: 'd', 'backing-mask-protocol': true }),
          () =>
            client.execute('migrate-set-capabilities', {
              capabilities: [{ capability: 'mapped-ram', state: true }],
            }),
        ]
      : [
          () => client.execute('migrate', { uri: 'tcp:127.0.0.1:1', blk: true }),
          () =>
            client.execute('migrate-set-capabilities', {
              capabilities: [{ capability: 'compress', state: true }],
            }),
        ];
    for (const call of refused) {
      await expect(call()).rejects.toMatchObject({
        code: 'ERR_QMP_COMMAND',
        hint: expect.stringMatching(/^This is QEMU .*'[a-z-]+' is known .*: leave it out/),
      });
    }
  });

  it('is not waited for', async () => {
    const event = isOld ? 'GUEST_PVSHUTDOWN' : 'MEM_UNPLUG_ERROR';
    await expect(client.waitForEvent(event)).rejects.toMatchObject({
      code: 'ERR_QMP_PROTOCOL',
      message: expect.stringContaining(`never sends ${event}`),
    });
    const wait = client.waitForEvent([event, 'STOP']);
    await client.execute('stop');
    expect((await wait).event).toBe('STOP');
  });
});

describe('the types', () => {
  it('know every command and event of this QEMU', async () => {
    const { major, minor } = client.version;
    const kept = (await keptSchemas()).find(({ version }) => version === `${major}.${minor}`);
    const schema = await client.execute('query-qmp-schema');
    for (const metaType of ['command', 'event'] as const) {
      const names = schema
        .filter((entity) => entity['meta-type'] === metaType)
        .map(({ name }) => name);
      // Other distributions build QEMU with fewer features, so they have fewer, never others.
      expect(kept?.names(metaType)).toEqual(expect.arrayContaining(names));
    }
  });
});
