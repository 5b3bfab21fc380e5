/**
 * A guest that floods without an end gets nothing past its policy: not while it boots, before its agent is there; not
 * where it goes on from a template, a fork, a snapshot or a suspension; not after its policy was changed.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { parseIp } from '../../../src/network/traffic/nflog.ts';
import type { NetworkInfo } from '../../../src/vm/api.ts';
import { SCALE } from '../../scale.ts';
import type { Capture } from './capture.ts';
import { HOST, WEB, World } from './world.ts';

/** Starts it with nothing of ours held, and goes on. */
const START = 'setsid python3 /root/flood.py ADDRESS </dev/null >/dev/null 2>&1 &';
/** In the place of the guest's Node: init starts it before there is an agent, and it never says no to one. */
const AS_NODE = `#!/bin/sh\n${START}\nexec NODE "$@"\n`;
/** So many denied frames are a flood, not a few. */
const MANY = 200;

let world: World;
let capture: Capture;
beforeAll(async () => {
  world = await World.create();
  capture = await world.capture();
  await world.agent('setup', 'network');
});
afterAll(async () => {
  await capture[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

const sh = (vm: string, line: string) =>
  world.agent('exec', '-u', 'root', vm, '--', 'sh', '-ec', line);
const info = async (vm: string) =>
  JSON.parse(await world.agent('net', 'show', vm, '--json')) as NetworkInfo;
const program = async (): Promise<string> => {
  const text = await readFile(join(import.meta.dirname, 'flood.py'), 'utf8');
  return `cat >/root/flood.py <<'END'\n${text}\nEND\n`;
};
/** Waits until a VM has been denied a flood on the tap that it has now; nothing of it may have arrived. */
async function expectFloodDenied(vm: string): Promise<void> {
  await vi.waitFor(
    async () => {
      const { denied } = JSON.parse(await world.agent('net', 'stats', vm, '--json')) as NetworkInfo;
      expect(denied?.packets).toBeGreaterThan(MANY);
    },
    { timeout: 60_000 * SCALE, interval: 200 },
  );
  expect(capture.holding('FLOOD')).toEqual([]);
}

it('while it boots, before its agent is there', async () => {
  await world.agent('create', '--network', 'nat-filtered', '--name', 'one');
  const { guestAddress } = await info('one');
  const asNode = AS_NODE.replace('ADDRESS', guestAddress!);
  await sh(
    'one',
    `${await program()}read -r node </etc/qmp-agent/node
printf '%s' '${asNode}' | sed "s|NODE|$node|" >/root/node; chmod +x /root/node
echo /root/node >/etc/qmp-agent/node; sync`,
  );
  await world.agent('stop', 'one');
  await world.agent('start', 'one');
  expect((await info('one')).guestAddress).toBe(guestAddress);
  await expectFloodDenied('one');
});

it('where it is forked, and the fork floods from its first instruction', async () => {
  await world.agent('fork', 'one', '--name', 'two');
  await expectFloodDenied('two');
  await world.agent('remove', '--force', 'two');
});

it('where it is put back to a snapshot, and suspended and resumed', async () => {
  await world.agent('snapshot', 'create', 'one', 's');
  await world.agent('snapshot', 'restore', 'one', 's');
  await expectFloodDenied('one');
  await world.agent('suspend', 'one');
  await world.agent('resume', 'one');
  await expectFloodDenied('one');
});

it('after its policy was changed: what was open is shut when the command returns', async () => {
  await world.agent('net', 'allow', 'one', '--allow-port', '443/udp');
  await vi.waitFor(() => expect(capture.holding('FLOOD').length).toBeGreaterThan(MANY), {
    timeout: 30_000 * SCALE,
  });
  await world.agent('net', 'set', 'one');
  const shutMs = Date.now();
  const before = capture.holding('FLOOD').length;
  await new Promise((done) => setTimeout(done, 2_000));
  const arrived = capture.holding('FLOOD');
  expect(arrived.length).toBeGreaterThanOrEqual(before);
  expect(arrived.filter(({ timeMs }) => timeMs > shutMs + 1)).toEqual([]);
  // While it was open, too: only what the policy had opened, and from the host's address.
  const kinds = new Set(
    arrived.map(({ data }) => {
      const ip = parseIp(data.subarray(14));
      return `${ip?.from} ${ip?.to}:${ip?.toPort} ${ip?.protocol}`;
    }),
  );
  expect([...kinds]).toEqual([`${HOST} ${WEB}:443 udp`]);
  capture.arrivals.length = 0;
  await expectFloodDenied('one');
  await world.agent('remove', '--force', 'one');
});

it('while a template is made of it, and where a clone goes on with its flood', async () => {
  const script = join(world.box.dir, 'provision.sh');
  await writeFile(script, `${await program()}${START.replace('ADDRESS', '10.210.0.3')}\nsleep 2\n`);
  await world.agent(
    'template',
    'create',
    'flood',
    '--network',
    'nat-filtered',
    '--provision',
    script,
  );
  expect(capture.holding('FLOOD')).toEqual([]);
  await world.agent('clone', 'flood', '--name', 'clone');
  await expectFloodDenied('clone');
  // The capture sees what is let through.
  await sh('clone', `curl -sS -m 20 -A FLOOD-not http://${WEB}/ >/dev/null`);
  await vi.waitFor(() => expect(capture.holding('FLOOD-not').length).toBeGreaterThan(0));
  await world.agent('remove', '--force', 'clone');
  await world.agent('template', 'remove', 'flood');
});
