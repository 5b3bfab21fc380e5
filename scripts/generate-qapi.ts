/**
 * Generates `qmp/generated/` from the QAPI schemas of several QEMU versions.
 *
 * ```
 * tsx scripts/generate-qapi.ts                                 # from scripts/qapi/schemas/
 * tsx scripts/generate-qapi.ts --schema 7.2=FILE --schema 10.0=FILE
 * tsx scripts/generate-qapi.ts --qemu qemu-system-x86_64 --qemu /opt/qemu-10/bin/qemu-system-x86_64
 * tsx scripts/generate-qapi.ts --dump FILE.json.gz --qemu PROGRAM   # only writes down its schema
 * ```
 *
 * A schema file is the JSON array that `query-qmp-schema` returns, gzipped where it ends in `.gz`.
 * `--out DIR` writes elsewhere.
 */
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import { BANNER_START, emitFiles } from './qapi/emit.ts';
import { mergeSchemas } from './qapi/merge.ts';
import { Schema } from './qapi/schema.ts';
import type { SchemaEntity } from './qapi/schema.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The schemas that the repository keeps. */
export const SCHEMA_DIR = join(ROOT, 'scripts/qapi/schemas');

/** Reads a schema file. */
export async function readSchema(version: string, file: string): Promise<Schema> {
  const bytes = await readFile(file);
  const text = (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8');
  return new Schema(version, JSON.parse(text) as SchemaEntity[]);
}

/** Reads the schemas that the repository keeps. */
export async function keptSchemas(): Promise<Schema[]> {
  const files = (await readdir(SCHEMA_DIR)).filter((file) => file.endsWith('.json.gz'));
  return Promise.all(
    files.map((file) => readSchema(basename(file, '.json.gz'), join(SCHEMA_DIR, file))),
  );
}

/** The generated files, by name. */
export function generate(schemas: readonly Schema[]): Map<string, string> {
  return emitFiles(mergeSchemas([...schemas].sort((a, b) => byVersion(a.version, b.version))));
}

function byVersion(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** Removes what an earlier run made, and nothing else: `--out` may be any directory. */
async function removeGenerated(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    const file = join(dir, name);
    if (name.endsWith('.ts') && (await readFile(file, 'utf8')).startsWith(BANNER_START)) {
      await rm(file);
    }
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      schema: { type: 'string', multiple: true, default: [] },
      qemu: { type: 'string', multiple: true, default: [] },
      dump: { type: 'string' },
      out: { type: 'string', default: join(ROOT, 'qmp/generated') },
    },
  });
  const schemas: Schema[] = [];
  for (const given of values.schema) {
    const [, version, file] = /^(\d+\.\d+)=(.+)$/.exec(given) ?? [];
    if (version === undefined || file === undefined) {
      throw new Error(`--schema ${given}: write it as VERSION=FILE, e.g. 7.2=schema.json`);
    }
    schemas.push(await readSchema(version, file));
  }
  for (const program of values.qemu) {
    // Loaded only here: it takes the client, which cannot be loaded without the generated files.
    const { dumpSchema } = await import('./qapi/dump.ts');
    const { version, entities } = await dumpSchema(program);
    if (values.dump !== undefined) {
      await writeFile(values.dump, gzipSync(JSON.stringify(entities), { level: 9 }));
      console.log(`${values.dump}: QEMU ${version}, ${entities.length} entities`);
      return;
    }
    schemas.push(new Schema(version, entities));
  }
  const files = generate(schemas.length > 0 ? schemas : await keptSchemas());
  await mkdir(values.out, { recursive: true });
  await removeGenerated(values.out);
  for (const [name, text] of files) {
    await writeFile(join(values.out, name), text);
    console.log(`${name}: ${text.split('\n').length} lines`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
