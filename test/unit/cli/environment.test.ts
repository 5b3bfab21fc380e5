import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { guestEnvironment } from '../../../src/cli/environment.ts';
import { ConfigError } from '../../../src/errors.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-agent-env-'));
});
afterEach(() => rm(dir, { recursive: true }));

describe('guestEnvironment', () => {
  it('takes values as they are, and names from the own environment', async () => {
    const env = ['A=1', 'B=x=y', 'EMPTY=', 'TOKEN', 'UNSET'];
    expect(await guestEnvironment({ env }, { TOKEN: 's3cret' })).toEqual({
      A: '1',
      B: 'x=y',
      EMPTY: '',
      TOKEN: 's3cret',
    });
  });

  it('reads files first: comments, empty lines, CRLF, names alone', async () => {
    const file = join(dir, 'env');
    await writeFile(file, '# comment\r\n\r\nA=file\r\nB= spaces kept \nTOKEN\n');
    expect(await guestEnvironment({ env: ['A=flag'], envFile: [file] }, { TOKEN: 't' })).toEqual({
      A: 'flag',
      B: ' spaces kept ',
      TOKEN: 't',
    });
  });

  it('never shows a value in an error', async () => {
    const file = join(dir, 'env');
    await writeFile(file, 'GOOD=1\nbad name=s3cret\n');
    for (const o of [{ env: ['=s3cret'] }, { env: ['a b=s3cret'] }, { envFile: [file] }]) {
      const error: unknown = await guestEnvironment(o, {}).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConfigError);
      expect(JSON.stringify(error) + (error as Error).message).not.toContain('s3cret');
    }
    const where = guestEnvironment({ envFile: [file] }, {});
    await expect(where).rejects.toThrow(/env:2/);
  });

  it('says which file cannot be read', async () => {
    await expect(guestEnvironment({ envFile: [join(dir, 'no')] }, {})).rejects.toThrow(/ENOENT/);
  });
});
