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

/** Who runs an exec that names nobody, where the image has it. */
export const DEFAULT_USER = 'agent';

/** Finds users in the texts of /etc/passwd and /etc/group. */
export function findUser(passwd: string, group: string, nameOrUid: string): GuestUser | undefined {
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
export function lookUpUser(nameOrUid: string | undefined): GuestUser {
  const passwd = readCached('/etc/passwd');
  const group = readCached('/etc/group');
  if (nameOrUid !== undefined) {
    const user = findUser(passwd, group, nameOrUid);
    if (!user) throw new RequestError('EUSER', `no user ${JSON.stringify(nameOrUid)} in the guest`);
    return user;
  }
  const self = String(process.getuid?.() ?? 0);
  const user = (self === '0' ? findUser(passwd, group, DEFAULT_USER) : undefined) ??
    findUser(passwd, group, self) ?? {
      name: 'root',
      uid: 0,
      gid: 0,
      home: '/',
      shell: '/bin/sh',
      groups: [],
    };
  return user;
}

const cache = new Map<string, { stamp: string; text: string }>();

/** A small file's text, read anew when it changed; empty where there is none. */
export function readCached(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true });
  if (!stat) return '';
  const stamp = `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
  const known = cache.get(path);
  if (known?.stamp === stamp) return known.text;
  const text = readFileSync(path, 'utf8');
  cache.set(path, { stamp, text });
  return text;
}
