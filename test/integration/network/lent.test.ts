/** Taps that root makes for a user who may not make any, with a real user, the real ip and nft; no VM is needed. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { LendingHost } from './lending-host.ts';
import type { TestHost } from './test-host.ts';

/** `nobody`, and another who has no name. */
const [USER, OTHER] = [65_534, 65_533];
/** The service looks at its taps every two seconds. */
const LOOK = { timeout: 15_000 * SCALE, interval: 200 };

let lending: LendingHost;
let host: TestHost;
let dir: string;
beforeAll(async () => {
  lending = await LendingHost.start([USER, OTHER]);
  ({ host, dir } = lending);
});
afterAll(async () => {
  await host.module(`await network.undoNetworkSetup();`);
  await vi.waitFor(async () => expect(await services()).toBe(''), LOOK);
  await lending[Symbol.asyncDispose]();
});

const services = () => lending.services();
const as = (uid: number, body: string) => lending.as(uid, body);
const ruleset = () => host.run('nft', 'list', 'ruleset');
/** The number that was given last to a VM with each of these taps. */
const counts = async (...taps: string[]) =>
  Promise.all(
    taps.map(async (tap) =>
      Number(await host.run('cat', `/run/qmp-agent-network/generation-${tap}`)),
    ),
  );
const flags = async (tap: string) =>
  (JSON.parse(await host.run('ip', '-json', 'link', 'show', tap)) as [{ flags: string[] }])[0]
    .flags;

it('where root has made none, a VM is refused by a text that says how to get one', async () => {
  const [refusal, mode] = await as(
    USER,
    `
    await refused(options(1));
    say(await network.defaultNetwork('auto'));`,
  );
  expect(refusal).toMatchObject({
    code: 'ERR_HOST_PERMISSION',
    hint: expect.stringMatching(/root.*CAP_NET_ADMIN.*qmp-agent setup network --taps/),
  });
  expect(mode).toBe('isolated');
});

it('a set-up that cannot have so many, or nobody to lend them, takes back taps, pool and all else that it has done', async () => {
  const state = () =>
    Promise.all([
      host.run('cat', '/proc/sys/net/ipv4/ip_forward'),
      host.run('ip', '-o', 'link'),
      ruleset(),
      host.run('ip', 'xfrm', 'policy'),
      host.run('sh', '-c', 'cat /etc/sysctl.d/* 2>/dev/null || true'),
    ]);
  const failing = (options: string) =>
    host.module(
      `await network.setUpNetwork(${options}).then(() => say('done'), (e) => say(failure(e)));`,
    );
  for (const before of ['', 'await network.setUpNetwork();']) {
    await host.module(before);
    const was = await state();
    // A /29 has room for three.
    const [refusal] = await failing(`{ pool: '10.9.0.0/29', taps: { count: 5, uid: ${USER} } }`);
    expect(refusal).toMatchObject({
      code: 'ERR_NETWORK_SETUP',
      message: expect.stringContaining('10.9.0.0/29 has no room for 5 taps'),
    });
    expect(await state()).toEqual(was);
    await host.run('mount', '-o', 'remount,ro', '/run/qmp-agent-taps');
    const signal = `AbortSignal.timeout(${5_000 * SCALE})`; // the service cannot start
    await failing(`{ pool: '10.9.0.0/29', taps: { count: 2, uid: ${USER} }, signal: ${signal} }`);
    await host.run('mount', '-o', 'remount,rw', '/run/qmp-agent-taps');
    expect(await state()).toEqual(was);
  }
  await host.module('await network.undoNetworkSetup();');
});

it('a pool that somebody has written and is none is told of by the name of the file, and nothing is done', async () => {
  const file = '/etc/sysctl.d/60-qmp-agent.conf';
  const was = await ruleset();
  const [refusal, there] = await host.module(`
    const { writeFile, readFile } = await import('node:fs/promises');
    await network.setUpNetwork({ pool: '10.9.0.0/24' });
    const text = await readFile('${file}', 'utf8');
    await writeFile('${file}', text.replace('/24', '/99'));
    await network.setUpNetwork().then(() => say('done'), (e) => say(failure(e)));
    say(await readFile('${file}', 'utf8'));
    await writeFile('${file}', text);
    await network.undoNetworkSetup();`);
  expect(refusal).toMatchObject({
    code: 'ERR_CONFIG',
    message: expect.stringContaining(`${file} says "10.9.0.0/99"`),
    hint: expect.stringContaining('take the file away'),
  });
  expect(there).toContain('10.9.0.0/99');
  expect(await ruleset()).toBe(was);
});

it('root makes them once; nobody else may use them, and they let nothing through', async () => {
  const steps = (await host.module(`
    for (const count of [2, 2, 1]) say(await network.setUpNetwork({ taps: { count, uid: ${USER} } }));`)) as {
    what: string;
    changed: boolean;
  }[][];
  expect(steps.map((all) => all.at(-1))).toEqual([
    { what: `2 taps for user ${USER}`, changed: true },
    { what: `2 taps for user ${USER}`, changed: false },
    { what: `1 taps for user ${USER}`, changed: false },
  ]);
  expect(await flags('qmpa1')).not.toContain('UP');
  expect(await ruleset()).not.toContain('qmpa');
  expect(await as(USER, `say(await network.defaultNetwork('auto'));`)).toEqual(['nat-filtered']);
  const [refusal] = await as(OTHER, `await refused(options(1));`);
  expect(refusal).toMatchObject({ code: 'ERR_HOST_PERMISSION' });
  expect(await host.run('stat', '-c', '%U %a', `/run/qmp-agent-taps/uid-${USER}.sock`)).toBe(
    'nobody 600\n',
  );
});

it('a VM borrows one with rules and names, and gives it back; the next is of another generation', async () => {
  const [first, second, third, again] = (await as(
    USER,
    `
    say(await join(options(1)));
    say(await join(options(2)));
    await refused(options(3));
    await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);
    say(await join(options(3)));`,
  )) as {
    tap: string;
    generation: number;
    mac: string;
    gatewayAddress: string;
    message: string;
    hint: string;
  }[];
  expect([first?.tap, second?.tap, again?.tap]).toEqual(['qmpa1', 'qmpa2', 'qmpa1']);
  expect(third).toMatchObject({
    code: 'ERR_NETWORK_SETUP',
    message: expect.stringContaining('are taken'),
    hint: expect.stringContaining('--taps'),
  });
  expect(again?.generation).not.toBe(first?.generation);
  expect(await counts('qmpa1', 'qmpa2')).toEqual([again?.generation, second?.generation]);
  expect(await flags('qmpa1')).toContain('UP');
  const rules = await ruleset();
  expect(rules).toContain('out_qmpa1');
  expect(rules).toContain(again?.mac);
  expect(await host.run('ss', '-Hlun')).toContain(`${again?.gatewayAddress}:53`);
  await as(
    USER,
    `for (const n of [2, 3]) await network.leaveNetwork(options(n).runtimeDir, options(n).vmId);`,
  );
  expect(await ruleset()).not.toContain('qmpa');
  expect(await flags('qmpa1')).not.toContain('UP');
  expect(await host.run('ss', '-Hlun')).not.toContain(':53');
});

it('what only root can give is refused by name, and takes no tap', async () => {
  const refusals = await as(
    USER,
    `
    await refused(options(1, { egress: { allowCidrs: ['10.1.2.3'] } }));
    await refused(options(1, { egress: { limits: { connections: 'none' } } }));
    await refused(options(1, { publish: ['8080:80'] }));
    await refused(options(1, { ipv6: true }));
    await join(options(1, { egress: { allowDomains: [], limits: {} } }));
    await network.changeEgress(options(1).runtimeDir, options(1).vmId, () => ({ public: false }))
      .catch((e) => say(failure(e)));
    await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);`,
  );
  expect(refusals).toMatchObject([
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('a policy of its own') },
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('a policy of its own') },
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('published ports') },
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('IPv6') },
    { code: 'ERR_NETWORK_SETUP', message: expect.stringContaining('the default one') },
  ]);
  for (const refusal of refusals)
    expect(refusal).toMatchObject({ hint: expect.stringContaining('CAP_NET_ADMIN') });
});

it('a tap whose user has gone is taken back; a VM that goes back to a snapshot has no connection of before', async () => {
  // Opens the tap as QEMU does (TUNSETIFF: IFF_TAP, IFF_NO_PI), until its input ends.
  const HOLD = `import fcntl, struct, sys; f = open('/dev/net/tun', 'r+b', buffering=0)
fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'qmpa1', 0x1002)); print('open', flush=True); sys.stdin.read(1)`;
  const [{ generation }, renewed] = (await as(
    USER,
    `
    const { spawn } = await import('node:child_process');
    const { once } = await import('node:events');
    say(await join(options(1)));
    const holder = spawn('python3', ['-c', ${JSON.stringify(HOLD)}], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    await network.leaveNetwork('/nonexistent', options(1).vmId);
    await network.cutConnections(options(1));
    say((await network.readEntryOf(options(1).runtimeDir, options(1).vmId)).network);
    await new Promise((resolve) => setTimeout(resolve, 3_000)); // a look of the service
    holder.kill('SIGKILL');`,
  )) as [{ generation: number }, { generation: number }];
  expect(renewed.generation).not.toBe(generation);
  await vi.waitFor(async () => expect(await ruleset()).not.toContain('qmpa1'), LOOK);
  expect(await flags('qmpa1')).not.toContain('UP');
});

it('who keeps his tap open and says that he does not has nothing of the next loan', async () => {
  // Opens it, says that its cable is out (TUNSETCARRIER), and sends an ARP frame for each line that it reads.
  const LIE = `import fcntl, os, struct, sys; f = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'qmpa1', 0x1002)); fcntl.ioctl(f, 0x400454e2, struct.pack('i', 0))
print('open', flush=True)
for _ in sys.stdin:
  try: print(os.write(f, b'\\xff' * 6 + bytes(6) + b'\\x08\\x06' + bytes(46)), flush=True)
  except OSError as e: print(e.strerror, flush=True)`;
  const said = await as(
    USER,
    `
    const { spawn } = await import('node:child_process');
    const { createInterface } = await import('node:readline');
    say((await join(options(1))).tap);
    const liar = spawn('python3', ['-c', ${JSON.stringify(LIE)}], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: liar.stdout })[Symbol.asyncIterator]();
    const next = async () => say((await lines.next()).value);
    const send = async () => { liar.stdin.write('\\n'); await next(); };
    await next();
    await send();
    await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);
    await send(); // it is down
    say((await join(options(2))).tap);
    await send(); // it is another
    await network.leaveNetwork(options(2).runtimeDir, options(2).vmId);
    liar.kill('SIGKILL');`,
  );
  const [down, gone] = ['Input/output error', 'File descriptor in bad state'];
  expect(said).toEqual(['qmpa1', 'open', '60', down, 'qmpa1', gone]);
});

it('another user finds neither the socket, nor the tap, nor what is on record', async () => {
  const [loan] = (await as(
    USER,
    `
    await join(options(1));
    say((await network.readEntryOf(options(1).runtimeDir, options(1).vmId)).loan);`,
  )) as [{ id: string; logPath: string }];
  expect(loan.id).toMatch(/^[0-9a-f]{32}$/);
  const [listed, log, socket, tap] = await as(
    OTHER,
    `
    const { readdir, readFile } = await import('node:fs/promises');
    const { connect } = await import('node:net');
    const { execFileSync } = await import('node:child_process');
    const code = ({ code }) => code;
    say(await readdir('/run/qmp-agent-taps').catch(code));
    say(await readFile('/run/qmp-agent-taps/service.log', 'utf8').catch(code));
    const socket = connect('/run/qmp-agent-taps/uid-${USER}.sock');
    say(await new Promise((resolve) => socket.once('error', (e) => resolve(e.code)).once('connect', () => resolve('in'))));
    say(execFileSync('python3', ['-c', ${JSON.stringify(`import fcntl, struct
f = open('/dev/net/tun', 'r+b', buffering=0)
try: fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'qmpa1', 0x1002)); print('open')
except OSError as e: print(e.strerror)`)}], { encoding: 'utf8' }).trim());`,
  );
  expect([listed, log, socket, tap]).toEqual([
    ...['EACCES', 'EACCES', 'EACCES'],
    'Operation not permitted',
  ]);
  await as(USER, `await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);`);
});

it('rules that somebody flushed come again, and a service that was killed does', async () => {
  const [vm] = (await as(USER, `say(await join(options(1)));`)) as [{ gatewayAddress: string }];
  await host.run('nft', 'flush', 'ruleset');
  await vi.waitFor(async () => expect(await ruleset()).toContain('out_qmpa1'), LOOK);
  await host.run('kill', '-9', (await services()).trim());
  await vi.waitFor(async () => {
    expect(await host.run('ss', '-Hlun')).toContain(`${vm.gatewayAddress}:53`);
    expect(await services()).not.toBe('');
  }, LOOK);
  await as(USER, `await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);`);
  expect(await ruleset()).not.toContain('qmpa1');
});

it.each(['KILL', 'TERM'])(
  'who asks while the service that somebody has ended (SIG%s) comes again waits for it',
  async (signal) => {
    await vi.waitFor(async () => expect(await services()).not.toBe(''), LOOK);
    const before = (await services()).trim();
    const [ready, killed] = [
      join(dir, String(USER), `ready-${signal}`),
      join(dir, `killed-${signal}`),
    ];
    const asked = as(
      USER,
      `
      const { existsSync, writeFileSync } = await import('node:fs');
      writeFileSync('${ready}', '');
      while (!existsSync('${killed}')) await new Promise((resolve) => setTimeout(resolve, 10));
      say(await join(options(1)));
      await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);`,
    );
    await vi.waitFor(() => access(ready), LOOK);
    await host.run('sh', '-c', `kill -${signal} ${before} && touch ${killed}`);
    const [vm] = await asked;
    expect(vm).toMatchObject({ tap: 'qmpa1' });
    expect((await services()).trim()).not.toBe(before);
  },
);
