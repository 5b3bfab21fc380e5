/** Where qmp-agent keeps its files. Names only; nothing here touches the disk. */
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const NAME = 'qmp-agent';

/** Directories and configuration files of this user. */
export interface ResolvedPaths {
  /** Images, disks and VM records; survives a reboot. */
  readonly dataDir: string;
  /** Sockets; short, because a unix socket path has 107 bytes. May be a tmpfs. */
  readonly runtimeDir: string;
  /** What can be made again: downloads, unpacked agents, initramfs files. */
  readonly cacheDir: string;
  /** Read in this order; a later file overrides an earlier one. Neither has to exist. */
  readonly configFiles: readonly string[];
}

/** Who asks; parameters so that tests need no second user. */
export interface Identity {
  readonly uid: number;
  readonly home: string;
}

/**
 * Paths by the FHS for root (`/var/lib`, `/run`, `/var/cache`), by the XDG base directory
 * specification for everybody else. `QMP_AGENT_STATE_DATA_DIR`, `QMP_AGENT_STATE_RUNTIME_DIR` and
 * `QMP_AGENT_STATE_CACHE_DIR` override the directories for both.
 *
 * Without `XDG_RUNTIME_DIR` (cron, `su`) the runtime directory is `<tmp>/qmp-agent-<uid>`: whoever
 * creates it must do so with mode 0700 and refuse one that belongs to another user.
 *
 * @param env Default `process.env`.
 */
export function resolvePaths(
  env: NodeJS.ProcessEnv = process.env,
  identity: Identity = { uid: process.getuid?.() ?? 0, home: homedir() },
): ResolvedPaths {
  const home = env['HOME'] !== undefined && env['HOME'] !== '' ? env['HOME'] : identity.home;
  const own = identity.uid === 0 ? rootPaths() : userPaths(env, home, identity.uid);
  return {
    dataDir: overridden(env['QMP_AGENT_STATE_DATA_DIR'], own.dataDir),
    runtimeDir: overridden(env['QMP_AGENT_STATE_RUNTIME_DIR'], own.runtimeDir),
    cacheDir: overridden(env['QMP_AGENT_STATE_CACHE_DIR'], own.cacheDir),
    configFiles: [
      join('/etc', NAME, 'config.yaml'),
      join(xdg(env['XDG_CONFIG_HOME']) ?? join(home, '.config'), NAME, 'config.yaml'),
    ],
  };
}

function rootPaths(): Omit<ResolvedPaths, 'configFiles'> {
  return {
    dataDir: join('/var/lib', NAME),
    runtimeDir: join('/run', NAME),
    cacheDir: join('/var/cache', NAME),
  };
}

function userPaths(
  env: NodeJS.ProcessEnv,
  home: string,
  uid: number,
): Omit<ResolvedPaths, 'configFiles'> {
  const runtime = xdg(env['XDG_RUNTIME_DIR']);
  return {
    dataDir: join(xdg(env['XDG_DATA_HOME']) ?? join(home, '.local/share'), NAME),
    runtimeDir: runtime === undefined ? join(tmpdir(), `${NAME}-${uid}`) : join(runtime, NAME),
    cacheDir: join(xdg(env['XDG_CACHE_HOME']) ?? join(home, '.cache'), NAME),
  };
}

/** The XDG specification: paths must be absolute, a relative one is to be ignored. */
function xdg(value: string | undefined): string | undefined {
  return value?.startsWith('/') === true ? value : undefined;
}

function overridden(value: string | undefined, otherwise: string): string {
  return value === undefined || value === '' ? otherwise : resolve(value);
}
