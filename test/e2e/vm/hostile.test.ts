/** A guest whose agent is hostile, beside one that is not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BareVm } from '../../../src/bench/bare-vm.ts';
import { findQemu, openImageStore } from '../../../src/vm/index.ts';
import type { Vm } from '../../../src/vm/vm.ts';
import { hostileFiles } from '../../integration/guest/hostile/agent.ts';
import { choose, meet } from '../../integration/guest/hostile/drive.ts';
import { ATTACKS } from '../../integration/guest/hostile/expected.ts';
import { useTestState } from './state.ts';
import { SCALE } from '../../scale.ts';

/** Bounds each call; the keep-alive needs two of it. A guest on a busy machine may not run for a second. */
const CALL_MS = 5_000 * SCALE;
/** Both guests, their QEMUs, this test and what it checks share two cores. */
const SLACK_MS = 7_000 * SCALE;
const MAX_GROWTH_MIB = 96;
const MEMORY_MIB = 512;

/** One of each kind; the integration tests have all of them. */
const CHOSEN = [
  'connect: silent preamble',
  'connect: endless preamble',
  'connect: wrong version',
  'connect: malformed HTTP/2',
  'call: silent reply',
  'call: deep JSON',
  'call: endless JSON, byte by byte',
  'call: oversized headers',
  'call: endless headers',
  'call: absurd frame length',
  'call: endless unknown frames',
  'call: endless pings',
  'call: data beyond the window',
  'exec: frame of 4 GiB',
  'exec: endless empty output',
  'exec: exec that never ends',
  'unread: output flood',
  'stdin: a window without bounds, and nobody who reads',
];
const attacks = CHOSEN.map((name) => ATTACKS.find((attack) => attack.name === name)!);

const state = useTestState();
let honest: Vm;
let hostile: BareVm;
const over = new AbortController();

beforeAll(async () => {
  honest = await state.create({ memoryMib: MEMORY_MIB });
  const { accel, machine, channel, image } = await honest.info();
  const store = openImageStore(state.paths);
  hostile = await BareVm.start({
    ...{ store, machine, channel, accel: accel!, memoryMib: MEMORY_MIB },
    image: await store.get(image),
    program: await hostileFiles(),
    qemuPath: (await findQemu('qemu-system-x86_64')).path,
    signal: over.signal,
  });
  await choose(hostile.target, CHOSEN[0]!); // it is up
});
afterAll(() => hostile[Symbol.asyncDispose]());

describe('a host survives', () => {
  it.each(attacks)('$name', async ({ name, code }) => {
    await choose(hostile.target, name);
    const meanwhile = honest.commands.run(['echo', name]);
    const { error, tookMs, grewMib } = await meet(hostile.target, name, CALL_MS);
    expect(error).toMatchObject({ code: expect.stringMatching(code), vmId: 'hostile' });
    expect(tookMs).toBeLessThan(3 * CALL_MS + SLACK_MS);
    expect(grewMib).toBeLessThan(MAX_GROWTH_MIB);
    expect(await meanwhile).toMatchObject({ exitCode: 0, stdout: `${name}\n` });
  });
});
