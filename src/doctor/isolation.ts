/** User namespaces and cgroups. */
import { isThere } from '../host-files.ts';
import { readText } from './probe.ts';
import { ok, warn, type Check } from './types.ts';

/** What decides. */
export interface IsolationFacts {
  readonly uid: number;
  readonly user: string;
  /** Contents of files; undefined where there is no such file. */
  readonly maxUserNamespaces: string | undefined;
  /** Debian's own switch. */
  readonly unprivilegedClone: string | undefined;
  /** Ubuntu's, from 23.10. */
  readonly apparmorRestricted: string | undefined;
  readonly subuid: string | undefined;
  /** Whether /sys/fs/cgroup is cgroup v2, has it beside v1, or not at all. */
  readonly cgroup: 'unified' | 'hybrid' | 'v1' | 'none';
  /** `cgroup.controllers` of a unified hierarchy. */
  readonly controllers: string | undefined;
}

const CGROUP = '/sys/fs/cgroup';

/** Looks at the host. */
export async function probeIsolation(uid: number, user: string): Promise<IsolationFacts> {
  const [max, clone, apparmor, subuid, controllers, hybrid, v1] = await Promise.all([
    readText('/proc/sys/user/max_user_namespaces'),
    readText('/proc/sys/kernel/unprivileged_userns_clone'),
    readText('/proc/sys/kernel/apparmor_restrict_unprivileged_userns'),
    readText('/etc/subuid'),
    readText(`${CGROUP}/cgroup.controllers`),
    isThere(`${CGROUP}/unified/cgroup.controllers`),
    isThere(`${CGROUP}/memory`),
  ]);
  return {
    uid,
    user,
    maxUserNamespaces: max,
    unprivilegedClone: clone,
    apparmorRestricted: apparmor,
    subuid,
    cgroup: controllers !== undefined ? 'unified' : hybrid ? 'hybrid' : v1 ? 'v1' : 'none',
    controllers,
  };
}

/** Judges. */
export function judgeIsolation(facts: IsolationFacts): Check[] {
  return [judgeNamespaces(facts), judgeCgroup(facts)];
}

/** Only image builds without root need them. */
function judgeNamespaces(facts: IsolationFacts): Check {
  const id = 'userns';
  if (facts.uid === 0) return ok(id, 'root: image builds need no user namespaces');
  if (facts.maxUserNamespaces?.trim() === '0') {
    return warn(
      id,
      'user namespaces are switched off',
      'sysctl user.max_user_namespaces=10000, or build images as root',
    );
  }
  if (facts.unprivilegedClone?.trim() === '0') {
    return warn(
      id,
      'user namespaces are for root only',
      'sysctl kernel.unprivileged_userns_clone=1, or build images as root',
    );
  }
  if (facts.apparmorRestricted?.trim() === '1') {
    return warn(
      id,
      'AppArmor restricts user namespaces',
      'sysctl kernel.apparmor_restrict_unprivileged_userns=0, or build images as root',
    );
  }
  const owners = (facts.subuid ?? '').split('\n').map((line) => line.split(':')[0]);
  if (!owners.includes(facts.user) && !owners.includes(String(facts.uid))) {
    return warn(
      id,
      `/etc/subuid has no range for ${facts.user}`,
      `apt install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${facts.user}, or build images as root`,
    );
  }
  return ok(id, 'user namespaces work: images can be built without root');
}

function judgeCgroup(facts: IsolationFacts): Check {
  const id = 'cgroup';
  const fix =
    'boot with systemd.unified_cgroup_hierarchy=1; limits on the host are not enforced until then';
  switch (facts.cgroup) {
    case 'unified':
      return ok(id, `cgroup v2 (${facts.controllers?.trim() || 'no controllers'})`);
    case 'hybrid':
      return warn(id, 'cgroup v1 with v2 beside it (hybrid)', fix);
    case 'v1':
      return warn(id, 'cgroup v1', fix);
    case 'none':
      return warn(
        id,
        'no cgroups',
        'mount -t cgroup2 none /sys/fs/cgroup; limits on the host are not enforced until then',
      );
  }
}
