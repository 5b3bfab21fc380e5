import { afterEach, describe, expect, it } from 'vitest';
import { events, type SystemEvent } from '../../../src/events.ts';
import { bodyText, specText, traceAgent } from '../../../src/guest/transcript.ts';

const seen: SystemEvent[] = [];
const unsubscribe = events.subscribe((event) => seen.push(event));
afterEach(() => seen.splice(0));

describe('a transcript', () => {
  it('is not made where nobody asked for it', () => {
    traceAgent('vm', 'out', () => {
      throw new Error('nobody wants to know');
    });
    expect(seen).toEqual([]);
  });

  it('is announced, and bounded', () => {
    events.enableTraces(['agent']);
    traceAgent('vm', 'out', () => 'GET /ping');
    traceAgent('vm', 'in', () => 'x'.repeat(100_000));
    expect(seen[0]).toMatchObject({
      ...{ type: 'trace.agent', vmId: 'vm', direction: 'out', line: 'GET /ping' },
    });
    expect(seen[1]).toMatchObject({ direction: 'in', line: 'x'.repeat(16 * 1024) });
    unsubscribe();
  });

  it('shows JSON, and counts bytes', () => {
    expect(bodyText(undefined)).toBe('');
    expect(bodyText('{"a":1}')).toBe(' {"a":1}');
    expect(bodyText(Buffer.from('{"password":"x"}'))).toBe(' (16 bytes)');
  });

  it('names the variables of an environment, not their values', () => {
    const text = specText({ argv: ['env'], env: { TOKEN: 's3cret', A: '' } });
    expect(JSON.parse(text)).toEqual({ argv: ['env'], env: { TOKEN: '***', A: '***' } });
    expect(specText({ shell: 'true' })).toBe('{"shell":"true"}');
  });
});
