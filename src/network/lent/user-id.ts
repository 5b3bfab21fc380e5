/** Who a user of the host is. */
import { execa } from 'execa';
import { ConfigError } from '../../errors.ts';

const TIMEOUT_MS = 10_000;

/**
 * The uid of a user, who may also be given by his uid; as the host knows its users, from wherever (nsswitch.conf(5)).
 * @throws ConfigError field `--user`: there is none, or it is root, who borrows no taps
 */
export async function userIdOf(
  user: string,
  o: { signal?: AbortSignal | undefined },
): Promise<number> {
  const uid = /^\d{1,9}$/.test(user) ? Number(user) : await lookUp(user, o.signal);
  if (uid !== undefined && uid !== 0) return uid;
  const what = uid === 0 ? 'root, who makes taps as they are needed' : 'no user of this host';
  throw new ConfigError(`${JSON.stringify(user)} is ${what}`, {
    ...{ field: '--user', value: user },
    hint: 'Give the name or uid of the user whose VMs are to have the taps.',
  });
}

async function lookUp(user: string, signal: AbortSignal | undefined): Promise<number | undefined> {
  const { stdout, failed } = await execa('id', ['-u', '--', user], {
    reject: false,
    timeout: TIMEOUT_MS,
    ...(signal === undefined ? {} : { cancelSignal: signal }),
  });
  signal?.throwIfAborted();
  return failed || !/^\d+$/.test(stdout) ? undefined : Number(stdout);
}
