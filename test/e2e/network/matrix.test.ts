/**
 * What passes and what is dropped, on real guests with real taps: mode by protocol by destination by direction by trick by policy,
 * a case a line. What passes arrives upstream and is on record; what is denied never arrives, the program
 * learns of it, and the VM's log says why.
 */
import { afterAll, beforeAll, describe } from 'vitest';
import { frameCases } from './matrix/frames.ts';
import { hostCases } from './matrix/host.ts';
import { inwardCases } from './matrix/inward.ts';
import { nameCases } from './matrix/names.ts';
import { plainCases } from './matrix/plain.ts';
import { policyCases } from './matrix/policies.ts';
import { socketCases } from './matrix/sockets.ts';
import { Matrix } from './matrix/subject.ts';

let matrix: Matrix;
beforeAll(async () => {
  matrix = await Matrix.create();
});
afterAll(() => matrix?.[Symbol.asyncDispose]());

describe.each([
  ['sockets', socketCases],
  ['frames', frameCases],
  ['questions', nameCases],
  ['inwards', inwardCases],
  ['policies', policyCases],
  ['the host', hostCases],
  ['modes without a tap', plainCases],
])('%s', (_theme, cases) => cases(() => matrix));
