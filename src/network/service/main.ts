/** Entry point of the network service; see service.ts. Started by start.ts. That of lent taps lends them, too. */
import { LENT_LOG_GROUP } from '../../../nft/index.ts';
import { readEntries } from '../entry.ts';
import { TapLender } from '../lent/lender.ts';
import { LENT_DIR } from '../lent/lent-taps.ts';
import { NetworkService } from './service.ts';
import { NEEDED } from './start.ts';

const [, , dir = ''] = process.argv;
const say = (text: string): void =>
  void process.stdout.write(`${new Date().toISOString()} ${text}\n`);

/** The last line is what those are told who wait for it. */
function cannotStart(error: unknown): never {
  say(`it cannot start: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}

let lender: TapLender | undefined;
const isNeeded = (): boolean => lender?.isNeeded === true;
const logGroup = dir === LENT_DIR ? LENT_LOG_GROUP : undefined;
const service = await NetworkService.start({ dir, say, isNeeded, logGroup }).catch(cannotStart);
if (service !== undefined) {
  if (dir === LENT_DIR) {
    const serve = (id: string): Promise<string> => service.refresh(id);
    const settle = (ids: readonly string[]): Promise<void> => service.settle(ids);
    lender = await TapLender.start({ serve, settle, say }).catch(cannotStart);
  }
  const ended = new Promise<void>((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve());
  });
  await Promise.race([service.idle, ended]);
  const isLending = isNeeded();
  await lender?.[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
  // Told to end, or a VM has come meanwhile: whoever watches over it starts it anew.
  const isStillNeeded = isLending || (await readEntries(dir)).length > 0;
  process.exit(isStillNeeded ? NEEDED : 0);
}
process.exit(0);
