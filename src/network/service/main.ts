/** Entry point of the network service; see service.ts. Started by start.ts. */
import { readEntries } from '../entry.ts';
import { NetworkService } from './service.ts';

const [, , dir = ''] = process.argv;
const say = (text: string): void =>
  void process.stdout.write(`${new Date().toISOString()} ${text}\n`);

const service = await NetworkService.start({ dir, say }).catch((error: unknown) => {
  // The last line is what those are told who wait for it.
  say(`it cannot start: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
});
if (service !== undefined) {
  const ended = new Promise<void>((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve());
  });
  await Promise.race([service.idle, ended]);
  await service[Symbol.asyncDispose]();
  // Told to end, or a VM has come meanwhile: whoever watches over it starts it anew.
  process.exit((await readEntries(dir)).length === 0 ? 0 : 1);
}
process.exit(0);
