import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOG_BASE_BYTES } from '../../../src/vm/bounded-log.ts';
import { startQmpAgent, type Sandbox } from '../../integration/cli/command.ts';
import { expectNothingLeft, vmSandbox } from './host.ts';

let box: Sandbox;
beforeAll(async () => {
  box = await vmSandbox();
});
afterAll(async () => {
  await expectNothingLeft(box);
  await box[Symbol.asyncDispose]();
});

/** Command lines of all processes on the host. */
async function processList(): Promise<string> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  return (await Promise.all(lines)).join('\n');
}

/** All files below a directory, without the images. */
async function filesBelow(dir: string): Promise<string> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const texts = files.map((file) => textOf(join(file.parentPath, file.name)));
  return (await Promise.all(texts)).join('\n');
}

/** A file's text; of a VM's logs, which begin with a hole of 2 TiB, what comes after it. */
async function textOf(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size < LOG_BASE_BYTES) return readFile(path, 'latin1');
  const chunks = await createReadStream(path, { start: LOG_BASE_BYTES }).toArray();
  return Buffer.concat(chunks as Buffer[]).toString('latin1');
}

describe('values given with --env', () => {
  it('are in no log, no record and no process list, with every transcript on', async () => {
    const secret = `s3cret-${randomBytes(12).toString('hex')}`;
    const log = join(box.dir, 'log.json');
    const script = 'test -n "$TOKEN" && echo ready && read -r line && exit 4';
    const command = startQmpAgent(
      [
        'run',
        ...['--log-level', 'trace', '--log-format', 'json', '--log-file', log],
        ...['--trace', 'qmp,argv,agent', '--env', 'TOKEN', '--', 'bash', '-c', script],
      ],
      { env: { ...box.env, TOKEN: secret }, stdin: 'pipe' },
    );
    await new Promise<void>((resolve, reject) => {
      command.stdout!.once('data', () => resolve());
      void command.then((result) => reject(new Error(String(result.stderr))));
    });
    expect(await processList()).not.toContain(secret);
    expect(await filesBelow(join(box.dir, 'data/vms'))).not.toContain(secret);
    command.stdin!.end('go\n');
    const result = await command;
    expect(result.exitCode).toBe(4);
    expect(String(result.stderr)).not.toContain(secret);
    const logged = await readFile(log, 'utf8');
    const types = new Set(
      logged
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { type: string }).type),
    );
    // The transcripts were on: else their silence would prove nothing.
    for (const type of [
      'trace.argv',
      'trace.qmp',
      'trace.agent',
      'exec.started',
      'exec.finished',
    ]) {
      expect([...types]).toContain(type);
    }
    expect(logged).not.toContain(secret);
    expect(logged).not.toContain(Buffer.from(secret).toString('base64').slice(4, 24));
  });
});
