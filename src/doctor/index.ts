/** Every need of the host: probed, judged, in one list. */
import { userInfo } from 'node:os';
import type { ResolvedPaths } from '../config/paths.ts';
import { judgeIsolation, probeIsolation } from './isolation.ts';
import { judgeNetwork, probeNetwork } from './network.ts';
import { judgeQemu, probeQemu } from './qemu.ts';
import { judgeResources, probeResources } from './resources.ts';
import { judgeDirectory, judgeImage, probeDirectory } from './state.ts';
import { judgeTools, probeTools } from './tools.ts';
import type { Check } from './types.ts';
import { judgeVirtualisation, probeVirtualisation } from './virtualisation.ts';

export { judgeConfig } from './state.ts';
export type { Check } from './types.ts';

/** What the checks go by. */
export interface DoctorOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly paths: ResolvedPaths;
  readonly qemuProgram: string;
  readonly vmMemoryMib: number;
  readonly image: string;
  /** Of VMs for which no network is given: `auto`, or a mode. */
  readonly defaultNetwork: string;
  /** Opens the image; rejects with what is wrong with it. */
  readonly openImage: (name: string) => Promise<unknown>;
}

/** Runs all checks; never throws. */
export async function examineHost(o: DoctorOptions): Promise<Check[]> {
  const uid = process.getuid?.() ?? 0;
  const imageError = await o.openImage(o.image).then(
    () => undefined,
    (error: Error & { code?: string }) => ({
      code: error.code ?? 'ERR_INTERNAL',
      message: error.message,
    }),
  );
  const imageBuilt = imageError === undefined;
  const { dataDir, runtimeDir, cacheDir } = o.paths;
  const [virtualisation, qemu, tools, isolation, network, resources, ...directories] =
    await Promise.all([
      probeVirtualisation(),
      probeQemu(o.qemuProgram, o.env),
      probeTools(o.env),
      probeIsolation(uid, userName(uid)),
      probeNetwork(o.defaultNetwork),
      probeResources({ dataDir, vmMemoryMib: o.vmMemoryMib, imageBuilt }),
      probeDirectory('dataDir', dataDir, uid),
      probeDirectory('runtimeDir', runtimeDir, uid),
      probeDirectory('cacheDir', cacheDir, uid),
    ]);
  return [
    ...judgeVirtualisation(virtualisation),
    ...judgeQemu(qemu),
    ...judgeTools(tools, imageBuilt),
    ...judgeIsolation(isolation),
    ...judgeNetwork(network),
    ...judgeResources(resources),
    ...directories.map(judgeDirectory),
    judgeImage(o.image, imageError),
  ];
}

/** A uid without an entry in the user database has no name: in containers, often. */
function userName(uid: number): string {
  try {
    return userInfo().username;
  } catch {
    return String(uid);
  }
}
