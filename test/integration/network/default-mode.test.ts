/** What a VM has by itself, on a host of the tests' own: as it is, set up, taken back, and without the right. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { NODE_ARGS } from '../cli/command.ts';
import { TestHost } from './test-host.ts';

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const LOOK = `
  import { events } from '${process.cwd()}/src/events.ts';
  const look = async () => {
    const warnings = [];
    const unsubscribe = events.subscribe((e) => e.type === 'host.warning' && warnings.push(e));
    say([await network.defaultNetwork('auto'), ...warnings.map(({ code, message, hint }) => ({ code, message, hint }))]);
    unsubscribe();
  };`;
const doctor = async (...before: string[]): Promise<{ id: string; status: string }[]> => {
  const env = ['env', 'QMP_AGENT_NETWORK_DEFAULT=auto'];
  const command = [...before, ...env, process.execPath, ...NODE_ARGS, 'doctor', '--json'];
  const text = await host.run('sh', '-c', '"$@" || true', 'sh', ...command); // the image may be missing
  return (JSON.parse(text) as { id: string; status: string }[]).filter(
    ({ id }) => id === 'network.default',
  );
};

it('is isolated, which is said once with the remedy, until the host is set up, and after that is undone', async () => {
  const said = await host.module(`${LOOK}
    await look();
    await look();
    await network.setUpNetwork();
    await look();
    await network.undoNetworkSetup();
    await look();`);
  const warning = {
    code: 'network.isolated',
    message: expect.stringContaining('not set up'),
    hint: expect.stringContaining('qmp-agent setup network'),
  };
  expect(said).toEqual([['isolated', warning], ['isolated'], ['nat-filtered'], ['isolated']]);
});

it('is not nat-filtered because somebody else has the host forward', async () => {
  const said = await host.module(`${LOOK}
    const { writeFile } = await import('node:fs/promises');
    await writeFile('/proc/sys/net/ipv4/ip_forward', '1');
    await look();
    await writeFile('/proc/sys/net/ipv4/ip_forward', '0');`);
  expect(said).toEqual([['isolated', expect.anything()]]);
});

it('is told by doctor, with its reason, also to a process without the right', async () => {
  expect(await doctor()).toEqual([
    expect.objectContaining({
      status: 'warn',
      found: expect.stringMatching(/isolated.*not set up/),
    }),
  ]);
  await host.module('await network.setUpNetwork();');
  expect(await doctor()).toEqual([
    expect.objectContaining({ status: 'ok', found: expect.stringContaining('nat-filtered') }),
  ]);
  expect(await doctor('setpriv', '--bounding-set=-net_admin')).toEqual([
    expect.objectContaining({
      status: 'warn',
      found: expect.stringContaining('may not make taps'),
      fix: expect.stringContaining('Run as root'),
    }),
  ]);
});
