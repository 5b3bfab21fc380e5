import { describe, expect, it } from 'vitest';
import { STREAM_WINDOW_BYTES } from '../../../guest-agent/protocol.ts';
import { TrafficBudget } from '../../../src/guest/traffic-budget.ts';

const MIB = 1024 * 1024;

function budget(): { of: TrafficBudget; overdrawn: () => boolean } {
  let times = 0;
  const of = new TrafficBudget(() => (times += 1));
  return { of, overdrawn: () => times > 0 };
}

describe('TrafficBudget', () => {
  it('ends what nobody asked for', () => {
    const { of, overdrawn } = budget();
    of.received(MIB);
    expect(overdrawn()).toBe(false);
    of.received(1);
    expect(overdrawn()).toBe(true);
  });

  it('lets a stream leave its whole window unread', () => {
    const { of, overdrawn } = budget();
    for (let i = 0; i < 100; i += 1) of.opened();
    of.received(100 * STREAM_WINDOW_BYTES);
    expect(overdrawn()).toBe(false);
  });

  it('never ends an honest download, a byte in each frame', () => {
    const { of, overdrawn } = budget();
    of.opened();
    for (let i = 0; i < 100_000; i += 1) {
      of.received(10);
      of.delivered(1);
    }
    expect(overdrawn()).toBe(false);
  });

  it('never ends a session that is kept alive for a year', () => {
    const { of, overdrawn } = budget();
    for (let minute = 0; minute < 365 * 24 * 60; minute += 1) {
      of.pinged();
      of.received(17);
    }
    expect(overdrawn()).toBe(false);
  });

  it('never ends a long upload for the room that the guest gives', () => {
    const { of, overdrawn } = budget();
    for (let i = 0; i < 100_000; i += 1) {
      of.sent(16_384);
      of.received(26);
    }
    expect(overdrawn()).toBe(false);
  });

  it('does not let a large download pay for an endless flood', () => {
    const { of, overdrawn } = budget();
    for (let i = 0; i < 1000; i += 1) {
      of.received(MIB);
      of.delivered(MIB);
    }
    for (let i = 0; i < 200 && !overdrawn(); i += 1) of.received(MIB);
    expect(overdrawn()).toBe(true);
  });
});
