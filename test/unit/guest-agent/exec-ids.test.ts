import { describe, expect, it } from 'vitest';
import { nextExecId, renewExecIds } from '../../../guest-agent/exec-ids.ts';

describe('ids of execs', () => {
  it('count up, and begin anew with another random part after fresh entropy', () => {
    const [first, second] = [nextExecId(), nextExecId()];
    renewExecIds();
    const third = nextExecId();
    const [epoch, number] = first.split('-');
    expect(epoch).toMatch(/^[0-9a-f]{12}$/);
    expect(second).toBe(`${epoch}-${Number(number) + 1}`);
    expect(third).not.toContain(epoch);
    expect(third).toMatch(/^[\w-]{1,64}$/); // as the agent's paths have it
  });
});
