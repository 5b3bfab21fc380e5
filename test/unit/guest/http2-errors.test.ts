import { expect, it } from 'vitest';
import { http2ErrorName } from '../../../src/guest/http2-errors.ts';

it('names codes as the RFC does, and others by their number', () => {
  expect([0, 1, 8, 11, 13].map(http2ErrorName)).toEqual([
    'NO_ERROR',
    'PROTOCOL_ERROR',
    'CANCEL',
    'ENHANCE_YOUR_CALM',
    'HTTP_1_1_REQUIRED',
  ]);
  expect(http2ErrorName(4711)).toBe('code 4711');
});
