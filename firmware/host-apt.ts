/**
 * What a build takes over from the host: proxy settings, apt's options for downloads, certificates.
 * All of it is used while building; only the host's own certificates stay in the image.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { readHostMirror, type Mirror } from './host-mirror.ts';

/** Environment variables that reach a build. All else of the caller's environment stays out. */
const PROXY_VARIABLES = [
  'http_proxy',
  'https_proxy',
  'ftp_proxy',
  'no_proxy',
  'all_proxy',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'NO_PROXY',
  'ALL_PROXY',
];

const LOCAL_CERTIFICATES = '/usr/local/share/ca-certificates';
const CA_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
];
/** A bundle of all public authorities has some 220 KB. */
const MAX_BUNDLE_BYTES = 8 * 1024 * 1024;

/** apt options worth taking over: how to download, never what. */
const APT_OPTION =
  /^Acquire::(http|https|ftp|socks|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]|Languages|Queue-Mode)\b[^ ]* ".*";$/;

/** What a build takes over from the host. */
export interface HostSettings {
  /** Proxy variables for the build's processes. May hold passwords. */
  readonly proxyEnv: Readonly<Record<string, string>>;
  /** Lines for an apt.conf. May hold passwords. */
  readonly aptConf: string;
  /** The host's own mirror of Debian; undefined: the public one. */
  readonly mirror: Mirror | undefined;
  /** The host's trusted certificates, PEM; undefined where it has none. */
  readonly caBundle: Buffer | undefined;
  /** Certificates that the host's administrator added: file name → PEM. They go into the image. */
  readonly localCertificates: ReadonlyMap<string, Buffer>;
}

/** Reads the host's settings. Never fails: what cannot be read is not there. */
export async function readHostSettings(
  env: NodeJS.ProcessEnv = process.env,
): Promise<HostSettings> {
  const proxyEnv: Record<string, string> = {};
  for (const name of PROXY_VARIABLES) {
    const value = env[name];
    if (value !== undefined && value !== '') proxyEnv[name] = value;
  }
  const [aptConf, mirror, caBundle, localCertificates] = await Promise.all([
    readAptConf(),
    readHostMirror(),
    readBundle(env),
    readLocalCertificates(),
  ]);
  return { proxyEnv, aptConf, mirror, caBundle, localCertificates };
}

async function readAptConf(): Promise<string> {
  const dump = await execa('apt-config', ['dump', '--format', '%F "%v";%n'], {
    reject: false,
    timeout: 10_000,
  });
  if (dump.exitCode !== 0) return '';
  // `#clear` and nested forms are not needed: apt-config prints the merged tree, a line each.
  const lines = dump.stdout.split('\n').filter((line) => APT_OPTION.test(line));
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

async function readBundle(env: NodeJS.ProcessEnv): Promise<Buffer | undefined> {
  for (const file of [env['SSL_CERT_FILE'], ...CA_BUNDLES]) {
    if (file === undefined || file === '') continue;
    const bundle = await readFile(file).catch(() => undefined);
    if (bundle !== undefined && bundle.length <= MAX_BUNDLE_BYTES) return bundle;
  }
  return undefined;
}

/** Certificates that the host's administrator added: file name → PEM. */
export async function readLocalCertificates(): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  const names = await readdir(LOCAL_CERTIFICATES).catch(() => []);
  for (const name of names.sort()) {
    if (!/^[A-Za-z0-9._-]+\.crt$/.test(name)) continue;
    const pem = await readFile(path.join(LOCAL_CERTIFICATES, name)).catch(() => undefined);
    if (pem !== undefined && pem.length <= MAX_BUNDLE_BYTES) found.set(name, pem);
  }
  return found;
}

/**
 * What of the settings must not be read in a log: the names and addresses of proxies and mirrors, as
 * they stand in URLs, with and without the rest of the URL.
 */
export function privateWords({ proxyEnv, aptConf, mirror }: HostSettings): string[] {
  const isProxy = ([name]: readonly [string, string]): boolean => !/^no_proxy$/i.test(name);
  const proxies = Object.entries(proxyEnv).filter(isProxy);
  const inConf = [...aptConf.matchAll(/::Proxy[^ ]* "([^"]+)"/gi)].map(([, value = '']) => value);
  const urls = [
    ...proxies.map(([, value]) => value),
    ...inConf,
    ...(mirror === undefined ? [] : [mirror.archive, mirror.security]),
  ];
  const words = new Set<string>();
  for (const url of urls) {
    const host = /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^/@]*@)?(\[[^\]]+\]|[^/:]+)/i.exec(url)?.[1];
    if (host === undefined || host.length < 3) continue;
    words.add(url.replace(/\/+$/, ''));
    if (!host.endsWith('debian.org')) words.add(host); // in every log; and no secret
  }
  return [...words].sort((a, b) => b.length - a.length); // the whole URL before the name in it
}

/**
 * Takes user and password out of every URL in a text. Used on all that a build prints or throws:
 * apt names its proxy and its mirror in error messages.
 */
export function scrubUrls(text: string): string {
  return text.replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, '$1***@');
}
