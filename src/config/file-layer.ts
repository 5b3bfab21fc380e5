/** Settings from a YAML file, each with its line. */
import { readFile, stat } from 'node:fs/promises';
import type { Document, Node } from 'yaml';
import { ConfigError } from '../errors.ts';
import type { LayerEntry } from './layers.ts';

/** Largest configuration file that is read. */
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Reads a configuration file.
 *
 * @param required Whether a missing file is an error (`--config FILE`) or an empty layer.
 * @throws ConfigError where it cannot be read, or is not a YAML map of sections.
 */
export async function fileLayer(file: string, required: boolean): Promise<LayerEntry[]> {
  const text = await readConfig(file, required);
  return text === undefined ? [] : await parseLayer(text, file);
}

async function readConfig(file: string, required: boolean): Promise<string | undefined> {
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) {
      throw new ConfigError(`${file} is larger than ${MAX_FILE_BYTES} bytes`, {
        field: file,
        hint: 'check that this is the configuration of qmp-agent',
      });
    }
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (!required && (code === 'ENOENT' || code === 'ENOTDIR')) return undefined;
    throw new ConfigError(`cannot read ${file}: ${code ?? String(error)}`, {
      field: file,
      hint:
        code === 'ENOENT'
          ? 'check the path given with --config'
          : `make it a file that this user can read, or remove it`,
      cause: error,
    });
  }
}

/** As {@link fileLayer}, from text. */
export async function parseLayer(text: string, file: string): Promise<LayerEntry[]> {
  const { isMap, isScalar, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  const doc: Document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const lineOf = (node: unknown): number | undefined => {
    const start = (node as Node | null | undefined)?.range?.[0];
    return start === undefined ? undefined : lines.linePos(start).line;
  };
  const fail = (problem: string, line: number | undefined): never => {
    throw new ConfigError(`${line === undefined ? file : `${file}:${line}`}: ${problem}`, {
      field: file,
      hint: 'write sections with settings below them, such as "vm:" and "  memoryMib: 2G"',
    });
  };

  const broken = doc.errors[0];
  if (broken !== undefined) fail(broken.message, lines.linePos(broken.pos[0]).line);
  if (doc.contents === null) return [];
  if (!isMap(doc.contents)) return fail('not a map of sections', lineOf(doc.contents));

  const keyOf = (key: unknown): string => (isScalar(key) ? String(key.value) : String(key));
  return doc.contents.items.flatMap((section): LayerEntry[] => {
    const name = keyOf(section.key);
    const line = lineOf(section.key);
    const origin = { kind: 'file', file, line } as const;
    if (!isMap(section.value)) {
      // `vm:` with nothing below it is a section whose settings are commented out.
      const value = isScalar(section.value) ? section.value.value : section.value;
      return value === null ? [] : [{ path: [name], value, origin }];
    }
    return section.value.items.map((item) => ({
      path: [name, keyOf(item.key)],
      value: (item.value as Node | null)?.toJS(doc) as unknown,
      origin: { kind: 'file', file, line: lineOf(item.key) },
    }));
  });
}
