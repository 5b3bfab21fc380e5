/**
 * Names that a kind of client needs, by one word. presets.json has them, or says where they are to be found:
 * which packages hosts a client uses is in its own settings on this host, or known to the client itself.
 */
import { readdir, readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { ConfigError } from '../errors.ts';
import type { EgressOptions } from './policy.ts';
import data from './presets.json' with { type: 'json' };

interface Preset {
  /** For people. */
  readonly about: string;
  /** Where nothing else says so. */
  readonly domains: readonly string[];
  /** Variables that hold a URL. */
  readonly environment: readonly string[];
  /** Files with URLs on lines that match. `~/` is the home directory; one `*` in the last part. */
  /** A command that prints URLs; asked where no settings have one. Empty: none. */
  readonly ask: readonly string[];
  readonly settings: readonly { readonly files: readonly string[]; readonly lines: string }[];
}

const PRESETS: Readonly<Record<string, Preset>> = data;

/** npm takes half a second. */
const ASK_MS = 15_000;
/** Largest settings file that is looked at. */
const MAX_SETTINGS_BYTES = 256 * 1024;

/** All names of presets with what they are for. */
export function listPresets(): { name: string; about: string }[] {
  return Object.entries(PRESETS).map(([name, { about }]) => ({ name, about }));
}

/** Where clients' settings are looked for. */
export interface PresetSources {
  readonly home: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * The hosts of a preset: names or IPv4 addresses, each with its port where that is none of the usual ones.
 * @throws ConfigError field `network.presets`
 */
export async function presetHosts(
  name: string,
  from: PresetSources = { home: homedir(), env: process.env },
): Promise<string[]> {
  const preset = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (preset === undefined) {
    throw new ConfigError(`there is no preset ${JSON.stringify(name)}`, {
      field: 'network.presets',
      value: name,
      hint: `Take one of ${Object.keys(PRESETS).join(', ')}; or name the domains (--allow-domain).`,
    });
  }
  const texts = preset.environment.map((variable) => from.env[variable] ?? '');
  for (const { files, lines } of preset.settings) {
    const wanted = new RegExp(lines);
    for (const path of files) {
      for (const text of await readAll(path.replace(/^~(?=\/)/, from.home))) {
        texts.push(...text.split('\n').filter((line) => wanted.test(line)));
      }
    }
  }
  const own = hostsIn(texts.join('\n'));
  if (own.length > 0) return own;
  const told = [...hostsIn(await answerOf(preset.ask, from)), ...preset.domains];
  if (told.length > 0) return told;
  throw new ConfigError(`no settings of this host say which hosts ${name} uses`, {
    field: 'network.presets',
    value: name,
    hint: `Name them (--allow-domain), or say so in ${preset.settings.flatMap(({ files }) => files).join(', ')}.`,
  });
}

/** What a VM may reach, with presets for what it needs by one word. */
export interface EgressRequest extends EgressOptions {
  /** `npm`, `pip`, `git`, …: see `listPresets`. Where there is one, nothing else is open. Default none. */
  readonly presets?: readonly string[] | undefined;
}

/**
 * Puts the hosts of presets in the place of their names, as this host's settings are now.
 * @throws ConfigError there is no such preset
 */
export async function resolveEgress({ presets = [], ...o }: EgressRequest): Promise<EgressOptions> {
  if (presets.length === 0) return o;
  const hosts = (await Promise.all(presets.map((name) => presetHosts(name)))).flat();
  const [cidrs, domains] = [hosts.filter(isAddress), hosts.filter((host) => !isAddress(host))];
  return {
    ...o,
    public: o.public ?? false,
    allowDomains: [...new Set([...(o.allowDomains ?? []), ...domains])],
    allowCidrs: [...new Set([...(o.allowCidrs ?? []), ...cidrs])],
  };
}

function isAddress(host: string): boolean {
  return isIPv4(host.split(':')[0] ?? '');
}

/** Hosts of the URLs in a text, each once. Pure. */
export function hostsIn(text: string): string[] {
  const hosts = new Set<string>();
  for (const [url] of text.matchAll(/\b(?:https?|git|ssh):\/\/[^\s"',\]]+/g)) {
    try {
      const { hostname, port } = new URL(url);
      if (hostname !== '' && !hostname.startsWith('['))
        hosts.add(port === '' ? hostname : `${hostname}:${port}`);
    } catch {
      // no URL after all
    }
  }
  return [...hosts];
}

/** What a client says of itself; empty where it is not installed, or fails. */
async function answerOf(
  [program, ...args]: readonly string[],
  { home, env }: PresetSources,
): Promise<string> {
  if (program === undefined) return '';
  const { stdout } = await execa(program, args, {
    reject: false,
    timeout: ASK_MS,
    cwd: '/',
    env: { ...env, HOME: home },
    extendEnv: false,
  });
  return stdout ?? '';
}

async function readAll(pattern: string): Promise<string[]> {
  if (!pattern.includes('*')) return readSmall(pattern);
  const dir = dirname(pattern);
  const [before = '', after = ''] = basename(pattern).split('*');
  const names = await readdir(dir).catch(() => []);
  const fitting = names.filter((name) => name.startsWith(before) && name.endsWith(after));
  return (await Promise.all(fitting.map((name) => readSmall(join(dir, name))))).flat();
}

async function readSmall(path: string): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text === '' || text.length > MAX_SETTINGS_BYTES ? [] : [text];
}
