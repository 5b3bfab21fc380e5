/** Images as VMs see them: which of them VMs stand on is known from the records. */
import { dirname, join } from 'node:path';
import { ImageStore } from '../image/index.ts';
import type { StatePaths } from './api.ts';
import { readAllRecords } from './record.ts';
import { TemplateStore } from './template/store.ts';
import { isAbandoned } from './vm-info.ts';

/** The image store of this state directory; it knows which images VMs stand on. */
export function openImageStore(paths: StatePaths): ImageStore {
  return new ImageStore({
    imagesDir: join(paths.dataDir, 'images'),
    cacheDir: paths.cacheDir,
    inUseBy: async (imageVersionDir) => {
      const entries = await readAllRecords(paths);
      const vms = entries.flatMap(({ record }) =>
        record !== undefined &&
        dirname(record.config.rootfsPath) === imageVersionDir &&
        !isAbandoned(record)
          ? [record.name ?? record.id]
          : [],
      );
      const templates = await new TemplateStore(paths).onImage(imageVersionDir);
      return [...vms, ...templates.map((name) => `template ${name}`)];
    },
  });
}
