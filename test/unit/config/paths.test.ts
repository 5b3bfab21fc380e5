import { describe, expect, it } from 'vitest';
import { resolvePaths } from '../../../src/config/paths.ts';

const root = { uid: 0, home: '/root' };
const user = { uid: 1000, home: '/home/u' };

describe('resolvePaths', () => {
  it('follows the FHS for root, whatever XDG says', () => {
    expect(resolvePaths({ XDG_DATA_HOME: '/x' }, root)).toEqual({
      dataDir: '/var/lib/qmp-agent',
      runtimeDir: '/run/qmp-agent',
      cacheDir: '/var/cache/qmp-agent',
      configFiles: ['/etc/qmp-agent/config.yaml', '/root/.config/qmp-agent/config.yaml'],
    });
  });

  it('follows XDG for everybody else', () => {
    const env = {
      HOME: '/home/u',
      XDG_DATA_HOME: '/d',
      XDG_RUNTIME_DIR: '/run/user/1000',
      XDG_CACHE_HOME: '/c',
      XDG_CONFIG_HOME: '/conf',
    };
    expect(resolvePaths(env, user)).toEqual({
      dataDir: '/d/qmp-agent',
      runtimeDir: '/run/user/1000/qmp-agent',
      cacheDir: '/c/qmp-agent',
      configFiles: ['/etc/qmp-agent/config.yaml', '/conf/qmp-agent/config.yaml'],
    });
  });

  it('has defaults where XDG says nothing, and ignores relative values as the specification asks', () => {
    const paths = resolvePaths({ XDG_DATA_HOME: 'relative' }, user);
    expect(paths.dataDir).toBe('/home/u/.local/share/qmp-agent');
    expect(paths.cacheDir).toBe('/home/u/.cache/qmp-agent');
    expect(paths.runtimeDir).toMatch(/\/qmp-agent-1000$/);
  });

  it('lets the environment override directories, for root too', () => {
    const env = { QMP_AGENT_STATE_DATA_DIR: '/data', QMP_AGENT_STATE_RUNTIME_DIR: '/rt' };
    expect(resolvePaths(env, root)).toMatchObject({ dataDir: '/data', runtimeDir: '/rt' });
  });
});
