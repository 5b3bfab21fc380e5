/** Which channels to the guest's agent are in use. */
import type { QmpClient } from '../../qmp/index.ts';
import { chardevOfChannel } from './argv.ts';
import type { WaitOptions } from './api.ts';

/**
 * virtio-serial channels at which a host process is: in a copy of the guest, or when it is put back to
 * this moment, their sessions lead nowhere.
 */
export async function connectedChannels(
  client: QmpClient,
  ports: number,
  o: WaitOptions,
): Promise<number[]> {
  const chardevs = await client.execute('query-chardev', {}, o);
  return Array.from({ length: ports }, (_, index) => index).filter((index) => {
    const own = chardevs.find(({ label }) => label === chardevOfChannel(index));
    return own !== undefined && !own.filename.startsWith('disconnected:');
  });
}
