import { describe, expect, it } from 'vitest';
import { nodeVersion } from '../../../src/image/agent-snapshot.ts';

describe('nodeVersion', () => {
  const packages = ['node-acorn 8.8.1', 'nodejs 20.19.2+dfsg-1', 'nodejs-doc 1'];

  it('is that of the package whose Node the agent runs on', () => {
    expect(nodeVersion({ node: 'image', packages })).toBe('20.19.2+dfsg-1');
    expect(nodeVersion({ node: 'image', packages: ['nodejs-doc 1'] })).toBeUndefined();
    expect(nodeVersion({ node: 'bundled', packages })).toBeUndefined();
  });
});
