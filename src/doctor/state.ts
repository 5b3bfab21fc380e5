/** Our own files: directories, base image, configuration. */
import { constants, lstat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isThere } from '../host-files.ts';
import { fail, ok, warn, type Check } from './types.ts';

/** A unix socket path has 107 bytes; `/<id>/monitor.sock` takes 26 of them. */
const MAX_RUNTIME_DIR_BYTES = 107 - '/0123456789ab/monitor.sock'.length;

/** One state directory, or the nearest directory above it that is there. */
export interface DirectoryFacts {
  readonly key: 'dataDir' | 'runtimeDir' | 'cacheDir';
  readonly path: string;
  readonly exists: boolean;
  /** What was looked at. */
  readonly at: string;
  readonly isDirectory: boolean;
  readonly writable: boolean;
  readonly ownerUid: number;
  readonly mode: number;
  readonly uid: number;
}

/** Looks at the host. */
export async function probeDirectory(
  key: DirectoryFacts['key'],
  path: string,
  uid: number,
): Promise<DirectoryFacts> {
  for (let at = path; ; at = dirname(at)) {
    const found = await lstat(at).catch(() => undefined);
    if (found === undefined && at !== dirname(at)) continue;
    const writable = await isThere(at, constants.W_OK | constants.X_OK);
    return {
      ...{ key, path, uid, at, writable },
      exists: at === path,
      isDirectory: found?.isDirectory() ?? false,
      ownerUid: found?.uid ?? -1,
      mode: (found?.mode ?? 0) & 0o777,
    };
  }
}

/** Judges. */
export function judgeDirectory(facts: DirectoryFacts): Check {
  const { key, path, at, exists } = facts;
  const id = `state.${key}`;
  const other = `or set state.${key} to another one`;
  if (key === 'runtimeDir' && Buffer.byteLength(path) > MAX_RUNTIME_DIR_BYTES) {
    return fail(
      id,
      `${path} is too long for unix sockets (at most ${MAX_RUNTIME_DIR_BYTES} bytes)`,
      'set state.runtimeDir to a shorter path',
    );
  }
  if (exists && !facts.isDirectory) {
    return fail(id, `${path} is no directory`, `move it away, ${other}`);
  }
  if (!facts.writable) {
    return fail(id, `${at} cannot be written to`, `chown it to this user, ${other}`);
  }
  if (exists && facts.ownerUid !== facts.uid) {
    return warn(
      id,
      `${path} belongs to another user (uid ${facts.ownerUid})`,
      `chown it, ${other}`,
    );
  }
  if (exists && (facts.mode & 0o022) !== 0) {
    return fail(id, `${path} can be written to by others`, `chmod go-w ${path}`);
  }
  return ok(id, exists ? path : `${path} (not there yet, can be created)`);
}

/** Judges whether the base image is there. `error`: what opening it said, undefined where it is fine. */
export function judgeImage(
  name: string,
  error: { code: string; message: string } | undefined,
): Check {
  const id = 'image';
  if (error === undefined) return ok(id, `image ${name} is there`);
  const build = `qmp-agent image build${name === 'base' ? '' : ' -f RECIPE'}`;
  return error.code === 'ERR_NOT_FOUND'
    ? warn(id, `image ${name} has not been built`, build)
    : fail(id, error.message, `${build} --force`);
}

/** Judges whether the configuration could be loaded. */
export function judgeConfig(
  error: { message: string; hint?: string | undefined } | undefined,
): Check {
  return error === undefined
    ? ok('config', 'the configuration is valid')
    : fail('config', error.message, error.hint ?? 'see qmp-agent config path');
}
