import { describe, expect, it } from 'vitest';
import { GuestProtocolError, GuestRequestError, TimeoutError } from '../../../src/errors.ts';
import { refusal, withDeadline, type RequestContext } from '../../../src/guest/request.ts';

const context = { vmId: 'vm' } as RequestContext;

describe('refusal', () => {
  it('hands on the agent’s code and words', () => {
    const error = refusal(context, { error: { code: 'ENOENT', message: 'no program x' } }, 'exec');
    expect(error).toBeInstanceOf(GuestRequestError);
    expect(error).toMatchObject({ guestCode: 'ENOENT', message: 'no program x', vmId: 'vm' });
  });

  it('lets no control character through, and no novel', () => {
    const message = `\x1b]0;owned\x07\x9b31m\r\n${'x'.repeat(10_000)}`;
    const error = refusal(context, { error: { code: '\x1b[2J', message } }, 'exec');
    expect(error.message).toMatch(/^\?\]0;owned\?\?31m\?\?x+$/);
    expect(error.message.length).toBe(2000);
    expect((error as GuestRequestError).guestCode).toBe('?[2J');
  });

  it.each([undefined, null, 'no', {}, { error: 'no' }, { error: { code: 1, message: 'x' } }])(
    'calls %j what it is',
    (value) => {
      expect(refusal(context, value, 'exec')).toBeInstanceOf(GuestProtocolError);
    },
  );
});

describe('withDeadline', () => {
  const never = new Promise<never>(() => undefined);
  const options = { operation: 'test', vmId: 'vm', timeoutMs: Infinity };

  it('gives what the work gives', async () => {
    await expect(withDeadline(Promise.resolve(5), options, () => undefined)).resolves.toBe(5);
  });

  it('gives up after its time, and says so', async () => {
    let abandoned = 0;
    const waiting = withDeadline(never, { ...options, timeoutMs: 5 }, () => (abandoned += 1));
    await expect(waiting).rejects.toThrow(TimeoutError);
    expect(abandoned).toBe(1);
  });

  it('gives up with the reason of its signal', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const waiting = withDeadline(never, { ...options, signal: controller.signal }, () => undefined);
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    const late = withDeadline(never, { ...options, signal: controller.signal }, () => undefined);
    await expect(late).rejects.toBe(reason);
  });
});
