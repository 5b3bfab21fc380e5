/** What is on disk about a template: `template.json`, beside its memory, state and disk. */
import { createHash } from 'node:crypto';
import { readFile, readlink, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TemplateError } from '../../errors.ts';
import type { Accel } from '../api.ts';
import { isVmId } from '../ids.ts';
import type { VmConfig } from '../record.ts';
import { checkSchema, STATE_SCHEMA } from '../state-dir.ts';

const MIB = 2 ** 20;

/** `template.json`. */
export interface TemplateManifest {
  readonly schema: typeof STATE_SCHEMA;
  readonly name: string;
  readonly id: string;
  readonly createdAt: string;
  /** Of the VM that was frozen. */
  readonly config: VmConfig;
  readonly accel: Accel;
  readonly ports: number;
  readonly qemuVersion: string;
  /** The guest's processor: its state means nothing to another. */
  readonly cpu?: string | undefined;
  /** Disks under the template's own, the nearest first. */
  readonly backingPaths: readonly string[];
  readonly memoryBytes: number;
  readonly stateSha256: string;
}

/** Files of a template in its directory. */
export function templateFiles(dir: string) {
  return {
    manifestPath: join(dir, 'template.json'),
    memoryPath: join(dir, 'memory'),
    statePath: join(dir, 'devices'),
    diskPath: join(dir, 'disk.qcow2'),
  };
}

/**
 * Reads what a template says of itself; whether that is there is not looked at.
 * @returns undefined where there is no such template
 * @throws TemplateError ERR_TEMPLATE_CORRUPT; StateDirError of a later version
 */
export async function peekManifest(dir: string): Promise<TemplateManifest | undefined> {
  const text = await readFile(templateFiles(dir).manifestPath, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw corrupt(dir, (error as Error).message);
  });
  return text === undefined ? undefined : parseManifest(text, dir);
}

/**
 * Reads a template's manifest and checks that what it names is there: sizes, and the devices' state whole.
 * @returns undefined where there is no such template
 * @throws TemplateError ERR_TEMPLATE_CORRUPT; StateDirError of a later version
 */
export async function readManifest(dir: string): Promise<TemplateManifest | undefined> {
  const files = templateFiles(dir);
  const manifest = await peekManifest(dir);
  if (manifest === undefined) return undefined;
  const [memory, state, disk] = await Promise.all([
    stat(files.memoryPath).catch(() => undefined),
    readFile(files.statePath).catch(() => undefined),
    stat(files.diskPath).catch(() => undefined),
  ]);
  if (memory === undefined) throw await withoutMemory(dir);
  if (memory.size !== manifest.memoryBytes) throw corrupt(dir, 'its memory is not whole');
  if (disk === undefined) throw corrupt(dir, 'its disk is gone');
  if (state === undefined || sha256(state) !== manifest.stateSha256)
    throw corrupt(dir, "its devices' state is not what was saved");
  return manifest;
}

function parseManifest(text: string, dir: string): TemplateManifest {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw corrupt(dir, (error as Error).message);
  }
  const manifest = data as Partial<TemplateManifest> | null;
  checkSchema(manifest?.schema, templateFiles(dir).manifestPath);
  const isWhole =
    isVmId(manifest?.id ?? '') &&
    typeof manifest?.config?.rootfsPath === 'string' &&
    Array.isArray(manifest.backingPaths) &&
    Number.isInteger(manifest.ports) &&
    manifest.memoryBytes === manifest.config.memoryMib * MIB;
  if (!isWhole) throw corrupt(dir, 'its manifest is none');
  return manifest as TemplateManifest;
}

/** SHA-256, hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Where it was put on a tmpfs, that is what comes of a reboot. */
async function withoutMemory(dir: string): Promise<TemplateError> {
  const target = await readlink(templateFiles(dir).memoryPath).catch(() => undefined);
  if (target === undefined) return corrupt(dir, 'its memory is gone');
  return new TemplateError(
    'ERR_TEMPLATE_CORRUPT',
    `the memory of the template in ${dir} is gone from ${dirname(target)}: a tmpfs is empty after a reboot`,
    {
      hint: `Create it again: \`qmp-agent template create ${basename(dir)} --force\`, or under another name where VMs stand on its disk.`,
    },
  );
}

function corrupt(dir: string, defect: string): TemplateError {
  return new TemplateError('ERR_TEMPLATE_CORRUPT', `the template in ${dir} is broken: ${defect}`, {
    hint: 'Remove it (`qmp-agent template remove`) and create it again.',
  });
}
