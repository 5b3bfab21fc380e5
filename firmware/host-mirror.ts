/**
 * Which Debian mirror the host uses, so that builds use it too: it may be the only one that the host
 * can reach. Images do not learn of it; they get the public addresses.
 */
import { execa } from 'execa';

/** Where Debian's archives are, without a slash at the end. May hold passwords. */
export interface Mirror {
  readonly archive: string;
  readonly security: string;
}

const DEBIAN = 'debian.org';
/** What images have. */
const PUBLIC_MIRROR: Mirror = {
  archive: `http://deb.${DEBIAN}/debian`,
  security: `http://security.${DEBIAN}/debian-security`,
};
/** What else means the public archive. */
const PUBLIC_HOST = new RegExp(`^https?://((deb|security|ftp(\\.\\w+)?)\\.${DEBIAN})/`);
/** Suites without updates of their own (Debian wiki, "DebianUnstable"). */
const ROLLING = new Set(['sid', 'unstable', 'experimental', 'rc-buggy']);
/** One line for each index that apt knows: `LABEL URI`, from signed Release files. */
const FORMAT = '$(ORIGIN)|$(LABEL)|$(REPO_URI)';

/**
 * The host's mirror, as of its last `apt-get update`; undefined where it is the public one, or the
 * host is none of Debian's.
 */
export async function readHostMirror(): Promise<Mirror | undefined> {
  const targets = await execa('apt-get', ['indextargets', '--format', FORMAT], {
    reject: false,
    timeout: 10_000,
  });
  return targets.exitCode === 0 ? parseIndexTargets(targets.stdout) : undefined;
}

/** Picks Debian's own archives out of apt's list by what their Release files say they are. */
export function parseIndexTargets(text: string): Mirror | undefined {
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [origin, label = '', uri = ''] = line.split('|');
    if (origin !== 'Debian' || !/^https?:\/\//.test(uri) || PUBLIC_HOST.test(uri)) continue;
    if (!found.has(label)) found.set(label, uri.replace(/\/+$/, ''));
  }
  const archive = found.get('Debian');
  const security = found.get('Debian-Security');
  if (archive === undefined && security === undefined) return undefined;
  return {
    archive: archive ?? PUBLIC_MIRROR.archive,
    security: security ?? PUBLIC_MIRROR.security,
  };
}

/** apt's sources.list for a suite (sources.list(5)). */
export function sourcesList(
  suite: string,
  mirror: Mirror = PUBLIC_MIRROR,
  keyring?: string,
): string {
  const options = keyring === undefined ? '' : `[signed-by=${keyring}] `;
  const lines = [`deb ${options}${mirror.archive} ${suite} main`];
  if (!ROLLING.has(suite)) {
    lines.push(`deb ${options}${mirror.archive} ${suite}-updates main`);
    lines.push(`deb ${options}${mirror.security} ${suite}-security main`);
  }
  return `${lines.join('\n')}\n`;
}
