/** A guest that is put back to an earlier time: no connection of the time that is undone goes on. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { WEB, World } from './world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
  await world.agent('setup', 'network');
  await world.agent('create', '--name', 'box', '-p', '8080:8000');
});
afterAll(async () => {
  await world.agent('remove', '--force', 'box');
  await world[Symbol.asyncDispose]();
});

/** Greets whoever comes, and holds him. */
const HOLD = `import socket
server = socket.create_server(("", 8000)); held = []
while True:
  held.append(server.accept()[0]); held[-1].send(b"hi")`;
/** Notes in a file that it was greeted, and says when it is hung up on. */
const CALL = `
const socket = require('node:net').connect(8080, '127.0.0.1');
socket.on('error', () => undefined);
socket.on('data', () => require('node:fs').writeFileSync(process.argv[1], ''));
socket.on('close', () => console.log('hung up'));`;
/** Longer than any wait of this test for its end. */
const CALL_S = '60';

it('while it was paused has none of them either, and new ones, when it is resumed', async () => {
  const background = (command: string) =>
    world.bash('box', `(${command}) </dev/null >/dev/null 2>&1 &`);
  await background(`exec python3 -c '${HOLD}'`);
  await background(`curl -sS -N -o /dev/shm/got http://${WEB}/slow; echo $? >/dev/shm/end`);
  await vi.waitFor(
    async () => expect(await world.bash('box', 'wc -c </dev/shm/got')).not.toBe('0\n'),
    { timeout: 30_000 * SCALE, interval: 500 },
  );
  await world.agent('snapshot', 'create', 'box', 's');
  const greeted = join(world.box.dir, 'greeted');
  const call = world.run('timeout', CALL_S, process.execPath, '-e', CALL, greeted);
  await vi.waitFor(() => expect(existsSync(greeted)).toBe(true), {
    timeout: 30_000 * SCALE,
    interval: 200,
  });

  await world.agent('pause', 'box');
  await world.agent('snapshot', 'restore', 'box', 's');
  await world.agent('resume', 'box');

  expect(await call).toBe('hung up\n');
  await vi.waitFor(
    async () => expect(await world.bash('box', 'cat /dev/shm/end')).toMatch(/^[1-9]/),
    { timeout: 30_000 * SCALE, interval: 500 },
  );
  expect(await world.fetched('box', 'http://web.test/')).toEqual([`${WEB}:80`]);
  await world.run('timeout', '20', process.execPath, '-e', CALL, `${greeted}-anew`).catch(() => '');
  expect(existsSync(`${greeted}-anew`)).toBe(true);
});
