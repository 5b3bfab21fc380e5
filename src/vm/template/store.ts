/** The templates of a state directory. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ConfigError, NotFoundError, TemplateError } from '../../errors.ts';
import { events } from '../../events.ts';
import { usedBytes } from '../../storage/index.ts';
import type { StatePaths, WaitOptions } from '../api.ts';
import { FileLock } from '../file-lock.ts';
import { isVmName, newVmId } from '../ids.ts';
import { readAllRecords } from '../record.ts';
import { checkOwner, makeDir, stateFault } from '../state-dir.ts';
import { isAbandoned } from '../vm-info.ts';
import { memoryPlaceOf, removeWithMemory } from './memory-dir.ts';
import { peekManifest, readManifest, templateFiles, type TemplateManifest } from './manifest.ts';
import type { BrokenTemplate, TemplateInfo } from './types.ts';

const WORKSHOP = /^\.[0-9a-f]{12}\.tmp$/;
/** In a workshop: held by its maker. */
const WORKSHOP_LOCK = 'lock';

/** Where a template is being made. */
export interface Workshop extends AsyncDisposable {
  readonly dir: string;
}

/** A VM or template, and the disks under its own. */
interface Standing {
  readonly who: string;
  readonly on: readonly string[];
}

/** A template that is there. */
export interface Template {
  readonly manifest: TemplateManifest;
  readonly dir: string;
}

/** The templates of a state directory. Several processes may use them at once. */
export class TemplateStore {
  readonly #paths: StatePaths;
  readonly #dir: string;

  constructor(paths: StatePaths) {
    this.#paths = paths;
    this.#dir = join(paths.dataDir, 'templates');
  }

  /**
   * A template by name.
   * @throws NotFoundError; TemplateError ERR_TEMPLATE_CORRUPT
   */
  async get(name: string): Promise<Template> {
    const dir = this.dirOf(name);
    const manifest = await readManifest(dir);
    if (manifest !== undefined) return { manifest, dir };
    throw new NotFoundError(`there is no template ${JSON.stringify(name)}`, {
      kind: 'template',
      query: name,
      candidates: await this.#names(),
      hint: `See what there is with \`qmp-agent template list\`, or create it: \`qmp-agent template create ${name}\`.`,
    });
  }

  /** All templates, by name; those that cannot be used with what is wrong with them. */
  async list(): Promise<(TemplateInfo | BrokenTemplate)[]> {
    const standing = await this.#standing();
    const names = await this.#names();
    return Promise.all(
      names.map((name) =>
        this.#describe(name, standing).catch(async (error: unknown): Promise<BrokenTemplate> => {
          const dir = this.dirOf(name);
          const defect = (error as Error).message;
          return { name, defect, ...(await this.#footing(dir, standing)), dir };
        }),
      ),
    );
  }

  /** One template with everything there is to say. @throws as {@link get} */
  async inspect(name: string): Promise<TemplateInfo> {
    return this.#describe(name, await this.#standing());
  }

  async #describe(name: string, standing: readonly Standing[]): Promise<TemplateInfo> {
    const { manifest, dir } = await this.get(name);
    const { config, id, createdAt, accel, qemuVersion, cpu } = manifest;
    const { image, vcpus, memoryMib, diskBytes, machine, channel, network, ipv6 } = config;
    return {
      ...{
        name,
        id,
        createdAt,
        image,
        vcpus,
        memoryMib,
        diskBytes,
        machine,
        accel,
        channel,
        network,
        ipv6,
      },
      ...{ qemuVersion, cpu, dir },
      ...(await this.#footing(dir, standing)),
    };
  }

  /** What it takes, and for whom. */
  async #footing(
    dir: string,
    standing: readonly Standing[],
  ): Promise<Pick<TemplateInfo, 'usedBytes' | 'usedBy' | 'memoryPlace'>> {
    const files = templateFiles(dir);
    const sizes = [files.memoryPath, files.statePath, files.diskPath].map(usedBytes);
    return {
      usedBytes: (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0),
      usedBy: usersOf(dir, standing),
      memoryPlace: await memoryPlaceOf(dir),
    };
  }

  /**
   * Removes a template.
   * @throws NotFoundError; TemplateError ERR_TEMPLATE_IN_USE naming who stands on it
   */
  async remove(name: string, o: WaitOptions = {}): Promise<void> {
    await using _lock = await this.lock(o);
    const dir = this.dirOf(name);
    if (!(await this.#names()).includes(name)) await this.get(name); // throws NotFoundError
    await this.#requireUnused(name, dir);
    await removeWithMemory(await this.#setAside(dir));
    events.emit('template.removed', { template: name });
  }

  /**
   * Puts a finished template into its place.
   * @throws ConfigError the name is taken, and `replace` is not asked for; TemplateError ERR_TEMPLATE_IN_USE
   */
  async publish(name: string, from: string, o: WaitOptions & { replace: boolean }): Promise<void> {
    await using _lock = await this.lock(o);
    const dir = this.dirOf(name);
    if ((await this.#names()).includes(name)) {
      if (!o.replace) throw this.#taken(name);
      await this.#requireUnused(name, dir);
      const old = await this.#setAside(dir);
      await rename(from, dir);
      await removeWithMemory(old);
    } else {
      await rename(from, dir);
    }
    await rm(join(dir, WORKSHOP_LOCK), { force: true });
  }

  /** Names of the templates whose disks stand on files in this directory of an image. */
  async onImage(imageVersionDir: string): Promise<string[]> {
    const found = await this.#manifests();
    return found.flatMap(({ name, config }) =>
      dirname(config.rootfsPath) === imageVersionDir ? [name] : [],
    );
  }

  /** @throws ConfigError the name is taken, or none */
  async requireFree(name: string): Promise<void> {
    this.dirOf(name);
    if ((await this.#names()).includes(name)) throw this.#taken(name);
  }

  /** Held while a VM is put on a template, or a template removed. */
  async lock(o: WaitOptions = {}): Promise<FileLock> {
    await makeDir(this.#dir);
    await checkOwner(this.#dir);
    const operation = 'the lock of the templates';
    return FileLock.acquire(join(this.#dir, '.lock'), { ...o, operation });
  }

  /** Where the template of this name is. @throws ConfigError no name */
  dirOf(name: string): string {
    if (isVmName(name)) return join(this.#dir, name);
    throw new ConfigError(`${JSON.stringify(name)} is not a template name`, {
      field: 'template',
      value: name,
      hint: 'Start with a letter and use at most 63 letters, digits, ".", "_" and "-".',
    });
  }

  /**
   * A directory in which a template is made before it gets its name; removed with all that is in it
   * unless it was published. The lock says that its maker lives.
   */
  async openWorkshop(id: string): Promise<Workshop> {
    await using _lock = await this.lock(); // else gc might take it for abandoned before it is locked
    const dir = join(this.#dir, `.${id}.tmp`);
    await mkdir(dir, { mode: 0o700 }).catch((error: unknown) => {
      throw stateFault(error, dir);
    });
    const lock = await FileLock.acquire(join(dir, WORKSHOP_LOCK));
    return {
      dir,
      [Symbol.asyncDispose]: async () => {
        await lock.release();
        await removeWithMemory(dir);
      },
    };
  }

  /** Removes what dead processes left half made. @returns the directories */
  async removeAbandoned(): Promise<string[]> {
    const removed: string[] = [];
    const workshops = (await readdir(this.#dir).catch(() => [])).filter((name) =>
      WORKSHOP.test(name),
    );
    if (workshops.length === 0) return removed;
    await using _lock = await this.lock();
    for (const name of workshops) {
      const dir = join(this.#dir, name);
      const lock = await FileLock.tryAcquire(join(dir, WORKSHOP_LOCK)).catch(() => undefined);
      if (lock === undefined) continue;
      await using _held = lock;
      await removeWithMemory(dir);
      removed.push(dir);
    }
    return removed;
  }

  /** Takes a template's name away at one stroke. What a killed process leaves of it is for gc. */
  async #setAside(dir: string): Promise<string> {
    const aside = join(this.#dir, `.${newVmId()}.tmp`);
    await rename(dir, aside);
    return aside;
  }

  async #requireUnused(name: string, dir: string): Promise<void> {
    const users = usersOf(dir, await this.#standing());
    if (users.length === 0) return;
    const list = users.join(', ');
    throw new TemplateError('ERR_TEMPLATE_IN_USE', `template ${name} is in use by ${list}`, {
      hint: `Remove these first: ${list}.`,
    });
  }

  /** VMs and templates, each with the disks that it stands on. */
  async #standing(): Promise<Standing[]> {
    const entries = await readAllRecords(this.#paths);
    const vms = entries.flatMap(({ record }): Standing[] =>
      record?.config.template === undefined || isAbandoned(record)
        ? []
        : [{ who: record.name ?? record.id, on: record.config.template.diskPaths }],
    );
    const templates = (await this.#manifests()).map(({ name, backingPaths }): Standing => ({
      who: `template ${name}`,
      on: backingPaths,
    }));
    return [...vms, ...templates];
  }

  /** Of all templates that can be read. */
  async #manifests(): Promise<TemplateManifest[]> {
    const found = await Promise.all(
      (await this.#names()).map((name) =>
        peekManifest(join(this.#dir, name)).catch(() => undefined),
      ),
    );
    return found.filter((manifest) => manifest !== undefined);
  }

  #taken(name: string): ConfigError {
    return new ConfigError(`there is a template ${name} already`, {
      field: 'template',
      value: name,
      hint: 'Choose another name, replace it with --force, or remove it first: `qmp-agent template remove`.',
    });
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.#dir).catch(() => [])).filter(isVmName).sort();
  }
}

/** VMs and templates whose disks stand on this template's. */
function usersOf(dir: string, standing: readonly Standing[]): string[] {
  const { diskPath } = templateFiles(dir);
  return standing.flatMap(({ who, on }) => (on.includes(diskPath) ? [who] : []));
}
