/** What the compiler knows; tsc is the judge, as part of the style suite. */
import { describe, expectTypeOf, it } from 'vitest';
import type { QmpClient, QmpArguments, QmpEvent, QmpReturn } from '../../../qmp/index.ts';

declare const client: QmpClient;

describe('types', () => {
  it('know what a command gives and takes', () => {
    expectTypeOf<QmpReturn<'query-status'>['running']>().toEqualTypeOf<boolean>();
    expectTypeOf<QmpReturn<'query-status'>['status']>()
      .extract<'paused'>()
      .toEqualTypeOf<'paused'>();
    expectTypeOf<QmpArguments<'snapshot-save'>>().toEqualTypeOf<{
      'job-id': string;
      tag: string;
      vmstate: string;
      devices: string[];
    }>();
  });

  it('tell what one of the versions lacks', () => {
    // Gone with 9.0; so it may be missing.
    expectTypeOf<QmpReturn<'query-status'>>().toHaveProperty('singlestep');
    expectTypeOf<QmpReturn<'query-status'>['singlestep']>().toEqualTypeOf<boolean | undefined>();
    expectTypeOf<QmpArguments<'migrate'>['channels']>()
      .extract<undefined>()
      .toEqualTypeOf<undefined>();
  });

  it('want arguments where a command needs some', () => {
    type Check = () => Promise<unknown>;
    expectTypeOf<Check>(() => client.execute('stop'));
    expectTypeOf<Check>(() => client.execute('stop', {}, { timeoutMs: 5 }));
    // @ts-expect-error id is required
    expectTypeOf<Check>(() => client.execute('job-cancel'));
    // @ts-expect-error no such argument
    expectTypeOf<Check>(() => client.execute('job-cancel', { id: 'x', force: true }));
    // @ts-expect-error no such command
    expectTypeOf<Check>(() => client.execute('query-xyzzy'));
    // @ts-expect-error raw needs `filename`
    expectTypeOf<Check>(() => client.execute('blockdev-add', { driver: 'file' }));
    // device_add takes the properties of the device, which no schema has.
    expectTypeOf<Check>(() =>
      client.execute('device_add', { driver: 'virtio-rng-pci', rng: 'r0' }),
    );
  });

  it('tell events apart by name', () => {
    const names = (event: QmpEvent): string => {
      if (event.event === 'JOB_STATUS_CHANGE') return event.data.id;
      if (event.event === 'STOP') {
        expectTypeOf(event.data).toEqualTypeOf<undefined>();
        return '';
      }
      return event.event;
    };
    expectTypeOf(names).returns.toBeString();
    expectTypeOf(() => client.waitForEvent('SHUTDOWN')).returns.resolves.toHaveProperty('data');
  });
});
