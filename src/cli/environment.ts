/** `--env` and `--env-file`, as docker reads them. No error ever shows a value: it may be a secret. */
import { readFile } from 'node:fs/promises';
import { ConfigError } from '../errors.ts';

/** Largest file that is read. */
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * The variables for a command in the guest. Files first, in their order, then `--env`.
 *
 * @param own The environment that `NAME` without a value is taken from; unset there means unset.
 * @throws ConfigError for a word that is no variable, or a file that cannot be read.
 */
export async function guestEnvironment(
  o: { env?: readonly string[]; envFile?: readonly string[] },
  own: NodeJS.ProcessEnv,
): Promise<Record<string, string>> {
  const result = new Map<string, string>();
  for (const file of o.envFile ?? []) {
    const text = await readEnvFile(file);
    for (const [index, line] of text.split('\n').entries()) {
      const word = line.replace(/\r$/, '').trimStart();
      if (word === '' || word.startsWith('#')) continue;
      setVariable(result, word, own, `--env-file ${file}:${index + 1}`);
    }
  }
  for (const word of o.env ?? []) setVariable(result, word, own, '--env');
  return Object.fromEntries(result);
}

function setVariable(
  into: Map<string, string>,
  word: string,
  own: NodeJS.ProcessEnv,
  where: string,
): void {
  const equals = word.indexOf('=');
  const name = equals === -1 ? word : word.slice(0, equals);
  if (name === '' || /[\s\0]/.test(name) || word.includes('\0')) {
    throw new ConfigError(`${where}: not a variable`, {
      field: '--env',
      hint: 'write NAME=value, or NAME to pass a variable of your own environment on',
    });
  }
  const value = equals === -1 ? own[name] : word.slice(equals + 1);
  if (value === undefined) into.delete(name);
  else into.set(name, value);
}

async function readEnvFile(file: string): Promise<string> {
  try {
    const content = await readFile(file);
    if (content.length <= MAX_FILE_BYTES) return content.toString('utf8');
  } catch (error) {
    throw new ConfigError(`cannot read ${file}: ${(error as Error).message}`, {
      field: '--env-file',
      value: file,
      hint: 'give a file with one NAME=value a line',
      cause: error,
    });
  }
  throw new ConfigError(`${file} is larger than ${MAX_FILE_BYTES} bytes`, {
    field: '--env-file',
    value: file,
    hint: 'give a file with one NAME=value a line',
  });
}
