import { describe, expect, it } from 'vitest';
import { channelOrder } from '../../../src/vm/guest-link.ts';

describe('channelOrder', () => {
  it.each([
    [{ ports: 2 }, [0, 1]],
    [{ ports: 4, busy: [0, 2] }, [1, 3, 0, 2]],
    [{ ports: 2, busy: [0, 1] }, [0, 1]],
    [{ ports: 0, busy: [] }, []],
  ])('puts those first that lead to nobody else: %j', (target, order) => {
    expect(channelOrder(target)).toEqual(order);
  });
});
