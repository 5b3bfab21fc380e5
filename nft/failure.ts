/** What it means when nft fails, and what to do about it. */
import {
  HostError,
  NetworkRulesError,
  type NetworkRulesReason,
  type QmpAgentError,
} from '../src/errors.ts';

/** Most of nft's words that an error carries, bytes; it repeats commands, which are long. */
const MAX_STDERR = 2000;

/** The kernel's error numbers, in nft's words, and what they mean here. First fit decides. */
const REASONS: readonly { pattern: RegExp; reason: NetworkRulesReason; hint: string }[] = [
  {
    pattern: /No such file or directory|does not exist/,
    reason: 'missing',
    hint: 'set the tables up again; somebody may have flushed the rules',
  },
  {
    pattern: /File exists/,
    reason: 'exists',
    hint: 'remove what is there under this name, or use another',
  },
  {
    pattern: /Device or resource busy/,
    reason: 'in-use',
    hint: 'remove what refers to it in the same transaction',
  },
  {
    pattern: /Too many open files in system|No space left|Cannot allocate memory/,
    reason: 'full',
    hint: 'open fewer addresses at a time, or remove VMs',
  },
];

/** Of a process that has failed. */
interface Failed {
  readonly code?: string | undefined;
  readonly stderr: string;
  readonly exitCode?: number | undefined;
  readonly shortMessage?: string | undefined;
}

/** nft's failure as an error of ours. */
export function readFailure(failed: Failed): QmpAgentError {
  if (failed.code === 'ENOENT') {
    return new HostError('ERR_HOST_TOOL', 'nft is not installed', {
      hint: 'install it: apt install nftables',
    });
  }
  const stderr = failed.stderr.trim().slice(0, MAX_STDERR);
  if (/Operation not permitted|Permission denied/.test(stderr) || failed.code === 'EACCES') {
    return new HostError(
      'ERR_HOST_PERMISSION',
      `no permission to change rules: ${firstLine(stderr)}`,
      {
        hint: 'run as root, or with CAP_NET_ADMIN',
      },
    );
  }
  const known = REASONS.find(({ pattern }) => pattern.test(stderr));
  const words = firstLine(stderr) || (failed.shortMessage ?? `exit code ${failed.exitCode}`);
  return new NetworkRulesError(`nft: ${words}`, {
    reason: known?.reason ?? 'refused',
    stderr,
    hint: known?.hint ?? 'see nft(8) and the kernel log; nothing was changed',
  });
}

/** nft names the place in its input first, which says nothing where that is JSON. */
function firstLine(stderr: string): string {
  return (stderr.split('\n')[0] ?? '').replace(/^internal:0:0-0: Error: /, '');
}
