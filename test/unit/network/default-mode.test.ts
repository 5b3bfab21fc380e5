import { afterEach, describe, expect, it, vi } from 'vitest';
import { defaultNetwork, tapObstacle, type TapFacts } from '../../../src/network/default-mode.ts';

const fine: TapFacts = {
  isPermitted: true,
  isLent: false,
  tunError: undefined,
  missingTools: [],
  isSetUp: true,
};
const nothing: TapFacts = {
  isPermitted: false,
  isLent: false,
  tunError: 'ENOENT',
  missingTools: ['ip', 'nft'],
  isSetUp: false,
};

describe('tapObstacle', () => {
  it('finds none where all is there', () => {
    expect(tapObstacle(fine)).toBeUndefined();
  });

  it('names what is missing, what cannot be helped by the next first, and the remedy', () => {
    expect(tapObstacle(nothing)?.hint).toContain('Run as root');
    expect(tapObstacle(nothing)?.hint).toContain('qmp-agent setup network --taps');
    expect(tapObstacle({ ...nothing, isPermitted: true })).toMatchObject({
      message: '/dev/net/tun cannot be opened (ENOENT)',
      hint: expect.stringContaining('modprobe tun'),
    });
    expect(tapObstacle({ ...fine, missingTools: ['nft'] })).toMatchObject({
      message: 'nft cannot be found',
      hint: expect.stringContaining('apt-get install nftables'),
    });
    expect(tapObstacle({ ...fine, isSetUp: false })?.hint).toContain('qmp-agent setup network');
  });
});

it('a user to whom root lends taps needs no more than to open one', () => {
  const lent = { ...nothing, isLent: true };
  expect(tapObstacle(lent)?.message).toContain('/dev/net/tun');
  expect(tapObstacle({ ...lent, tunError: undefined })).toBeUndefined();
});

describe('defaultNetwork', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it('is what is asked for, else what the environment says', async () => {
    vi.stubEnv('QMP_AGENT_NETWORK_DEFAULT', 'user');
    expect(await defaultNetwork('nat-filtered')).toBe('nat-filtered');
    expect(await defaultNetwork()).toBe('user');
  });

  it('refuses an environment that says something else', async () => {
    vi.stubEnv('QMP_AGENT_NETWORK_DEFAULT', 'open');
    await expect(defaultNetwork()).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      field: 'network.default',
      hint: expect.stringContaining('nat-filtered'),
    });
  });
});
