/** The environment an exec starts with. */
import { readCached, type GuestUser } from './users.ts';

/** `KEY=VALUE` lines that the image gives to every exec. */
export const ENVIRONMENT_FILE = '/etc/qmp-agent/environment';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Lines `KEY=VALUE`; empty lines and those that start with `#` are skipped, values are taken as they are. */
export function parseEnvironment(text: string): Record<string, string> {
  const env: Record<string, string> = {};
  for (const line of text.split('\n')) {
    const at = line.indexOf('=');
    if (at > 0 && !line.startsWith('#')) env[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return env;
}

let image: { text: string; env: Readonly<Record<string, string>> } = { text: '', env: {} };

/** What the image gives, read anew where the file changed. */
function imageEnvironment(): Readonly<Record<string, string>> {
  const text = readCached(ENVIRONMENT_FILE);
  if (text !== image.text) image = { text, env: parseEnvironment(text) };
  return image.env;
}

/** The image's environment, then the user's, then the caller's. */
export function execEnvironment(
  user: GuestUser,
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  return {
    PATH: DEFAULT_PATH,
    LANG: 'C.UTF-8',
    TERM: 'xterm-256color',
    ...imageEnvironment(),
    HOME: user.home,
    USER: user.name,
    LOGNAME: user.name,
    SHELL: user.shell,
    ...extra,
  };
}
