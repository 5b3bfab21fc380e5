import { describe, expect, it } from 'vitest';
import { HostError } from '../../../src/errors.ts';
import { checkSocketPaths, MAX_SOCKET_PATH_BYTES, vmPaths } from '../../../src/vm/vm-paths.ts';

const id = '0123456789ab';
const paths = (runtimeDir: string) => ({ dataDir: '/d', cacheDir: '/c', runtimeDir });
const socketsOf = (runtimeDir: string): string[] => {
  const files = vmPaths(paths(runtimeDir), id);
  const { qmpSocketPath, monitorSocketPath, consoleSocketPath } = files;
  return [qmpSocketPath, monitorSocketPath, consoleSocketPath, files.channelSocketPath(3)];
};

describe('checkSocketPaths', () => {
  it('lets the longest directory through whose sockets all fit, and no longer one', () => {
    const longest = Math.max(...socketsOf('').map((path) => path.length));
    const fits = `/${'r'.repeat(MAX_SOCKET_PATH_BYTES - longest - 2)}`;
    expect(() => checkSocketPaths(paths(fits), id)).not.toThrow();
    expect(Math.max(...socketsOf(fits).map((path) => path.length))).toBe(MAX_SOCKET_PATH_BYTES);
    expect(() => checkSocketPaths(paths(`${fits}r`), id)).toThrow(HostError);
  });

  it('counts bytes, and says what to set', () => {
    expect(() => checkSocketPaths(paths(`/${'ü'.repeat(50)}`), id)).toThrow(
      expect.objectContaining({
        code: 'ERR_HOST_SOCKET',
        vmId: id,
        hint: expect.stringContaining('state.runtimeDir'),
      }) as Error,
    );
  });
});
