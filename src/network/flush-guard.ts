/**
 * What stands in for the rules where somebody flushes them (`nft flush ruleset`): IPsec policies that block
 * packets from VMs' addresses without the mark that our guard gives to each that it lets through. The kernel
 * keeps them apart from nftables (ip-xfrm(8), `mark`; net/xfrm/xfrm_policy.c).
 */
import { MARK_MASK } from '../../nft/index.ts';
import { NetworkInterfaceError } from '../errors.ts';
import { ipBatch, ipText, type IpCallOptions } from './ip-command.ts';

/** Forwarded, and to the host itself. */
const DIRECTIONS = ['fwd', 'in'] as const;
const MARK = { value: 0, mask: `0x${MARK_MASK.toString(16)}` };

/** @param pool of IPv4 or IPv6. @returns whether there is one now: a kernel without IPsec has none. @throws as `ipBatch` */
export async function raiseFlushGuard(pool: string, o: IpCallOptions = {}): Promise<boolean> {
  const commands = DIRECTIONS.map(
    (dir) =>
      `xfrm policy update ${selector(pool).join(' ')} dir ${dir} mark ${MARK.value} mask ${MARK.mask} action block`,
  );
  return unlessRefused(() => ipBatch(commands, o));
}

/** @returns whether it is there */
export async function hasFlushGuard(pool: string, o: IpCallOptions = {}): Promise<boolean> {
  let found = '';
  await unlessRefused(async () => {
    found = await ipText(['xfrm', 'policy', 'list', ...selector(pool), 'action', 'block'], o);
  });
  const isOurs = (dir: string) => found.includes(`dir ${dir} action block`);
  return DIRECTIONS.every(isOurs) && found.includes(`mark ${MARK.value}/${MARK.mask}`);
}

/** All that have some, whoever knows of them: nobody else has policies by our mark. */
export async function guardedPools(o: IpCallOptions = {}): Promise<string[]> {
  let found = '';
  await unlessRefused(async () => {
    found = await ipText(['xfrm', 'policy', 'list', 'action', 'block'], o);
  });
  const policies = found.split(/^(?=src )/m).flatMap((text) => {
    const [, source] = /^src (\S+) dst (?:0\.0\.0\.0|::)\/0\s/.exec(text) ?? [];
    return source !== undefined && text.includes(`mark ${MARK.value}/${MARK.mask}`) ? source : [];
  });
  return [...new Set(policies)];
}

/** No error where it is gone. (`delete` finds no policy with the mark 0: iproute2 does not send it.) */
export async function lowerFlushGuard(pool: string, o: IpCallOptions = {}): Promise<void> {
  const command = `xfrm policy deleteall ${selector(pool).join(' ')} action block`;
  await unlessRefused(() => ipBatch([command], o));
}

/** Packets from VMs' addresses, wherever they go. */
function selector(pool: string): string[] {
  return ['src', pool, 'dst', pool.includes(':') ? '::/0' : '0.0.0.0/0'];
}

async function unlessRefused(call: () => Promise<void>): Promise<boolean> {
  try {
    await call();
    return true;
  } catch (error) {
    if (error instanceof NetworkInterfaceError) return false;
    throw error;
  }
}
