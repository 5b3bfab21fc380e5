import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { QmpClient } from '../../qmp/client.ts';
import { QmpConnectError } from '../../src/errors.ts';
import type { SchemaEntity } from './schema.ts';

const CONNECT_TRIES = 100;
const CONNECT_PAUSE_MS = 50;

/** Asks a QEMU for its schema. It is started without a machine, and ended. */
export async function dumpSchema(
  qemu: string,
): Promise<{ version: string; entities: SchemaEntity[] }> {
  const dir = await mkdtemp(join(tmpdir(), 'qapi-'));
  const path = join(dir, 'qmp.sock');
  const args = ['-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none'];
  const child = spawn(qemu, [...args, '-qmp', `unix:${path},server=on,wait=off`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await once(child, 'spawn');
    const client = await connect(path, () => child.exitCode !== null);
    const { major, minor } = client.version;
    const entities = (await client.executeRaw('query-qmp-schema')) as SchemaEntity[];
    await client.close();
    return { version: `${major}.${minor}`, entities };
  } finally {
    child.kill('SIGKILL');
    await rm(dir, { recursive: true, force: true });
  }
}

async function connect(path: string, isGone: () => boolean): Promise<QmpClient> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await QmpClient.connect({ path });
    } catch (error) {
      if (!(error instanceof QmpConnectError) || attempt === CONNECT_TRIES || isGone()) throw error;
      await delay(CONNECT_PAUSE_MS);
    }
  }
}
