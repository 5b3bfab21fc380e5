/** An image's configuration: OCI image-spec config.md; docker's image specification v1.2 says the same. */
import { importError, DO_NOT_TRUST } from './import-error.ts';

/** What of a configuration means something in a VM. */
export interface ContainerConfig {
  readonly environment: Readonly<Record<string, string>>;
  /** `user`, `uid`, or either with `:group`; undefined: root. */
  readonly user: string | undefined;
  readonly workdir: string | undefined;
  readonly entrypoint: readonly string[] | undefined;
  readonly command: readonly string[] | undefined;
  /** SHA-256 of each layer's uncompressed bytes, hex. */
  readonly diffIds: readonly string[];
}

/** Hint for a configuration that nobody's tool writes. */
const BUILD_ANEW = 'Correct it where the image is made (ENV, USER, WORKDIR), and build that anew.';

/** A JSON object; anything else reads as an empty one. */
export function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

/** A JSON list; anything else reads as an empty one. */
export function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/**
 * Checks a configuration.
 * @param label names the image in errors
 * @throws ImageError it is for another architecture, or holds what no VM can be given
 */
export function parseContainerConfig(json: unknown, label: string): ContainerConfig {
  const { os, architecture, rootfs, config } = asObject(json);
  if (os !== 'linux' || architecture !== 'amd64') {
    const platform = `${printable(os)}/${printable(architecture)}`;
    throw importError(
      `${label} is for ${platform}, not for linux/amd64`,
      'Get it for this platform: docker pull --platform linux/amd64 IMAGE.',
    );
  }
  const { Env, User, WorkingDir, Entrypoint, Cmd } = asObject(config);
  return {
    environment: environment(Env, label),
    user: user(User, label),
    workdir: workdir(WorkingDir, label),
    entrypoint: words(Entrypoint),
    command: words(Cmd),
    diffIds: asList(asObject(rootfs)['diff_ids']).map((id) => hexDigest(id, label)),
  };
}

/** The hex part of a `sha256:` digest. @throws ImageError it is none */
export function hexDigest(value: unknown, label: string): string {
  const hex = typeof value === 'string' ? /^sha256:([0-9a-f]{64})$/.exec(value)?.[1] : undefined;
  if (hex !== undefined) return hex;
  throw importError(`${label} has ${printable(value)} for a digest`, DO_NOT_TRUST);
}

function printable(value: unknown): string {
  return typeof value === 'string'
    ? value.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 100)
    : 'nothing';
}

/** Carried to the guest as `NAME=value` lines. */
function environment(value: unknown, label: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const entry of asList(value)) {
    const [, name, text] =
      (typeof entry === 'string' && /^([^=\s#][^=\n\0]*)=([^\n\0]*)$/.exec(entry)) || [];
    if (name === undefined || text === undefined) {
      const shown = printable(typeof entry === 'string' ? entry.split('=')[0] : entry);
      throw importError(
        `${label}: environment variable ${shown} is not one line of text`,
        BUILD_ANEW,
      );
    }
    result[name] = text;
  }
  return result;
}

function user(value: unknown, label: string): string | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value === 'string' && /^[\w.][\w.-]*(:[\w.][\w.-]*)?$/.test(value)) return value;
  throw importError(`${label}: ${printable(value)} is no name of a user`, BUILD_ANEW);
}

function workdir(value: unknown, label: string): string | undefined {
  if (value === undefined || value === null || value === '' || value === '/') return undefined;
  if (
    typeof value === 'string' &&
    value.startsWith('/') &&
    !/[\n\0]|(^|\/)\.\.(\/|$)/.test(value)
  ) {
    return value;
  }
  throw importError(
    `${label}: working directory ${printable(value)} is not an absolute path`,
    BUILD_ANEW,
  );
}

function words(value: unknown): readonly string[] | undefined {
  const list = asList(value).filter((word) => typeof word === 'string');
  return list.length === 0 ? undefined : list;
}
