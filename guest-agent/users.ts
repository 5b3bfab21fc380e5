/** Users and groups of the guest, from /etc/passwd and /etc/group (passwd(5), group(5)). */
import { readFileSync, statSync } from 'node:fs';
import { RequestError } from './request-error.ts';

/** A user as execs need it. */
export interface GuestUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
  /** Groups besides `gid`. */
  readonly groups: readonly number[];
}

/** Who runs an exec that names nobody: the image's own choice, in this file … */
const USER_FILE = '/etc/qmp-agent/user';
/** … else this user, where the image has it. */
export const DEFAULT_USER = 'agent';

/**
 * Finds users in the texts of /etc/passwd and /etc/group. As in docker, `:group` (a name or an id) may
 * follow; then that is the only group.
 */
export function findUser(passwd: string, group: string, wanted: string): GuestUser | undefined {
  const [nameOrUid = '', groupOrGid] = wanted.split(':', 2);
  const user = findAlone(passwd, group, nameOrUid);
  if (user === undefined || groupOrGid === undefined) return user;
  const gid = findGroup(group, groupOrGid);
  return gid === undefined ? undefined : { ...user, gid, groups: [] };
}

function findGroup(group: string, nameOrGid: string): number | undefined {
  for (const line of group.split('\n')) {
    const [name = '', , gid = ''] = line.split(':');
    if (name !== '' && name === nameOrGid && gid !== '') return Number(gid);
  }
  return /^\d{1,10}$/.test(nameOrGid) ? Number(nameOrGid) : undefined;
}

function findAlone(passwd: string, group: string, nameOrUid: string): GuestUser | undefined {
  const byUid = /^\d+$/.test(nameOrUid);
  for (const line of passwd.split('\n')) {
    const [name = '', , uid = '', gid = '', , home = '', shell = ''] = line.split(':');
    if (name === '' || gid === '' || (byUid ? uid : name) !== nameOrUid) continue;
    const own = Number(gid);
    const groups = groupsOf(group, name).filter((id) => id !== own);
    return {
      name,
      uid: Number(uid),
      gid: own,
      home: home || '/',
      shell: shell || '/bin/sh',
      groups,
    };
  }
  // A uid without an entry is legal, as it is in docker.
  const uid = Number(nameOrUid);
  if (!byUid || uid > 0xffff_fffe) return undefined;
  return { name: nameOrUid, uid, gid: uid, home: '/', shell: '/bin/sh', groups: [] };
}

function groupsOf(group: string, user: string): number[] {
  const ids: number[] = [];
  for (const line of group.split('\n')) {
    const [, , gid = '', members = ''] = line.split(':');
    if (gid !== '' && members.split(',').includes(user)) ids.push(Number(gid));
  }
  return ids;
}

/**
 * The user an exec runs as.
 * @throws RequestError `EUSER` where there is no such user
 */
export function lookUpUser(named: string | undefined): GuestUser {
  const nameOrUid = named ?? imageUser();
  const passwd = readCached('/etc/passwd');
  const group = readCached('/etc/group');
  if (passwd !== known.passwd || group !== known.group) known = { passwd, group, users: new Map() };
  let user = known.users.get(nameOrUid);
  if (!user) {
    user = searchUser(passwd, group, nameOrUid);
    if (known.users.size < MAX_KNOWN_USERS) known.users.set(nameOrUid, user);
  }
  return user;
}

/** What was found in these texts; comparing them is a comparison of pointers where nothing changed. */
let known: { passwd: string; group: string; users: Map<string | undefined, GuestUser> } = {
  passwd: '',
  group: '',
  users: new Map(),
};
const MAX_KNOWN_USERS = 64;

/** Only root can become another user. */
function imageUser(): string | undefined {
  const text = process.getuid?.() === 0 ? readCached(USER_FILE).trim() : '';
  return text === '' ? undefined : text;
}

function searchUser(passwd: string, group: string, nameOrUid: string | undefined): GuestUser {
  if (nameOrUid !== undefined) {
    const user = findUser(passwd, group, nameOrUid);
    if (!user) throw new RequestError('EUSER', `no user ${JSON.stringify(nameOrUid)} in the guest`);
    return user;
  }
  const self = String(process.getuid?.() ?? 0);
  const fallback = { name: 'root', uid: 0, gid: 0, home: '/', shell: '/bin/sh', groups: [] };
  return (
    (self === '0' ? findUser(passwd, group, DEFAULT_USER) : undefined) ??
    findUser(passwd, group, self) ??
    fallback
  );
}

const cache = new Map<string, { stamp: string; text: string }>();

/** Changes whenever the file does; undefined where there is none. */
export function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat && `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeMs} ${stat.ctimeMs}`;
}

/** A small file's text, read anew when it changed; empty where there is none. */
export function readCached(path: string): string {
  const stamp = stampOf(path);
  if (stamp === undefined) return '';
  const known = cache.get(path);
  if (known?.stamp === stamp) return known.text;
  const text = readFileSync(path, 'utf8');
  cache.set(path, { stamp, text });
  return text;
}
