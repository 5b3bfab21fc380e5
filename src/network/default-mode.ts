/**
 * What a VM can reach where nobody says: what its policy allows, by a tap, on a host that can give it one;
 * nothing elsewhere, and that is said. Decided here and nowhere else.
 */
import { PLAIN_MODES } from '../config/network-modes.ts';
import { ConfigError } from '../errors.ts';
import { findProgram, openError } from '../host-files.ts';
import { warnOnce } from '../host-warning.ts';
import { hasLentTaps } from './lent/borrow.ts';
import type { NetworkMode } from './mode.ts';
import { mayMakeTaps } from './rights.ts';
import { isSetUp } from './setup.ts';

/** What may be chosen, what holds by itself first. */
export const DEFAULT_NETWORKS = ['auto', ...PLAIN_MODES] as const;

/** `auto`: as the host can; else the mode itself. */
export type DefaultNetwork = (typeof DEFAULT_NETWORKS)[number];

/** The setting `network.default` as a variable: the API reads no files. */
const VARIABLE = 'QMP_AGENT_NETWORK_DEFAULT';
const TUN_DEVICE = '/dev/net/tun';
/** What makes taps and their rules, and the package that has it. */
const TOOLS = { ip: 'iproute2', nft: 'nftables' } as const;

/** What decides; read from the host by {@link probeTaps}, given by tests. */
export interface TapFacts {
  /** Whether this process, and the tools that it starts, may make taps. */
  readonly isPermitted: boolean;
  /** Whether root has made some for this process's user. */
  readonly isLent: boolean;
  /** errno name from opening /dev/net/tun; undefined where it opens. */
  readonly tunError: string | undefined;
  /** Those of `ip` and `nft` that are not there. */
  readonly missingTools: readonly (keyof typeof TOOLS)[];
  /** Whether `qmp-agent setup network` was done, and still holds. */
  readonly isSetUp: boolean;
}

/** Why a VM has no tap by itself, and what to do about it. */
export interface TapObstacle {
  readonly message: string;
  readonly hint: string;
}

/** Undefined where nothing is in the way. Pure. */
export function tapObstacle(facts: TapFacts): TapObstacle | undefined {
  const { isPermitted, isLent, tunError, missingTools, isSetUp: isDone } = facts;
  if (!isPermitted && !isLent) {
    return {
      message: 'this process may not make taps',
      hint: 'Run as root (CAP_NET_ADMIN), or have root make taps for this user: qmp-agent setup network --taps N --user NAME.',
    };
  }
  if (tunError !== undefined) {
    return {
      message: `${TUN_DEVICE} cannot be opened (${tunError})`,
      hint: 'Load the module (`modprobe tun`); in a container, pass the device on.',
    };
  }
  if (!isPermitted) return undefined; // all else is root's to see to
  if (missingTools.length > 0) {
    const packages = missingTools.map((tool) => TOOLS[tool]).join(' ');
    return {
      message: `${missingTools.join(' and ')} cannot be found`,
      hint: `Install it: apt-get install ${packages}.`,
    };
  }
  if (!isDone) {
    return {
      message: 'this host is not set up to forward for VMs',
      hint: 'Run as root, once: qmp-agent setup network (--undo takes it back).',
    };
  }
  return undefined;
}

/** Looks at the host: some files, no process; done for each VM, as a host may be set up at any time. */
export async function probeTaps(): Promise<TapFacts> {
  const tools = Object.keys(TOOLS) as (keyof typeof TOOLS)[];
  const [isPermitted, isLent, tunError, isDone, ...paths] = await Promise.all([
    mayMakeTaps(),
    hasLentTaps(),
    openError(TUN_DEVICE),
    isSetUp(),
    ...tools.map((tool) => findProgram(tool)),
  ]);
  const missingTools = tools.filter((_, index) => paths[index] === undefined);
  return { isPermitted, isLent, tunError, missingTools, isSetUp: isDone };
}

/**
 * What a VM can reach for which neither a mode is given nor anything that implies one.
 * @param wanted default: what the environment says, else `auto`
 * @throws ConfigError `network.default`: the environment says something else
 */
export async function defaultNetwork(wanted?: DefaultNetwork): Promise<NetworkMode> {
  const choice = wanted ?? fromEnvironment();
  if (choice !== 'auto') return choice;
  const obstacle = tapObstacle(await probeTaps());
  if (obstacle === undefined) return 'nat-filtered';
  warnAboutIsolation(obstacle);
  return 'isolated';
}

function fromEnvironment(): DefaultNetwork {
  const value = process.env[VARIABLE] ?? '';
  const found = DEFAULT_NETWORKS.find((choice) => choice === value);
  if (found !== undefined || value === '') return found ?? 'auto';
  throw new ConfigError(`${VARIABLE} is ${JSON.stringify(value)}`, {
    field: 'network.default',
    value,
    hint: `Give one of ${DEFAULT_NETWORKS.join(', ')}.`,
  });
}

/** Announces once a process that nobody asked for less than what VMs can have, and they have it. */
function warnAboutIsolation({ message, hint }: TapObstacle): void {
  warnOnce('network.isolated', {
    code: 'network.isolated',
    message: `VMs reach nothing (--network isolated): ${message}`,
    hint: `${hint} Or say that it is meant: --network isolated, or the setting network.default.`,
  });
}
