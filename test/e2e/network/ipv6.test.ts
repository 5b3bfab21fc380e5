/** VMs with IPv6: real guests, taps, rules and resolver on a host of the tests' own. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { SCALE } from '../../scale.ts';
import { HOST6, LAN6, NEAR6, OTHER6, WEB, WEB6, World } from './world.ts';

const ULA = 'fd12:3456:789a::/64';
const REFUSED = 'failed 7';
const NO_NAME = 'failed 6';
/** A template and some boots, beside other suites. */
const LONG = { timeout: 300_000 * SCALE };

/** Connects from an address that it gives itself for the time (netdevice(7): SIOCSIFADDR, SIOCDIFADDR). */
const FORGE = `import fcntl, socket, struct, sys
new = lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
own = "fd12:3456:789a::9"
request = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, own), 128, socket.if_nametoindex("eth0"))
fcntl.ioctl(new(), 0x8916, request)
try:
    one = new(); one.settimeout(3); one.bind((own, 0)); one.connect((sys.argv[1], 80)); print("through")
except OSError as error: print(type(error).__name__)
fcntl.ioctl(new(), 0x8936, request)`;

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const agent = (...args: string[]) => world.agent(...args);
const fetched = (vm: string, ...urls: string[]) => world.fetched(vm, ...urls);
const addressesOf = async (vm: string) => {
  const { ipv6 } = await world.info(vm);
  if (ipv6 === undefined) throw new Error(`${vm} has no IPv6`);
  return ipv6;
};
/** Of all interfaces of the guest, the loopback's too, as the kernel writes them. */
const inGuest = async (vm: string) =>
  (await world.bash(vm, "awk '{print $1, $6}' /proc/net/if_inet6")).trim().split('\n').sort();
/** The same of an address. */
const asKernel = (address: string) => {
  const [head = '', tail = ''] = address.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const missing = 8 - groups(head).length - groups(tail).length;
  const all = [...groups(head), ...Array.from({ length: missing }, () => '0'), ...groups(tail)];
  return all.map((group) => group.padStart(4, '0')).join('');
};
const LOOPBACK = `${asKernel('::1')} lo`;

it('a host that is not set up for it refuses such a VM, and says what to do; so do other networks', async () => {
  await agent('setup', 'network');
  await expect(agent('create', '--ipv6')).rejects.toThrow('qmp-agent setup network --ipv6');
  await expect(agent('create', '--ipv6', '--network', 'user')).rejects.toThrow(
    'the network user has no IPv6',
  );
  expect(await agent('list', '--all', '--quiet')).toBe('');
  expect((await world.traces()).taps).toEqual([]);
  expect(await agent('setup', 'network', '--ipv6', ULA)).toMatch(
    /^done: net\.ipv6\.conf\.all\.forwarding/m,
  );
  const checks = JSON.parse(await agent('doctor', '--json')) as Record<string, string>[];
  expect(checks.find(({ id }) => id === 'network.ipv6')).toMatchObject({
    status: 'ok',
    found: expect.stringContaining(ULA),
  });
});

it('a VM reaches the web by address and by name, and nothing else; all of it is on record', async () => {
  await agent('create', '--ipv6', '--name', 'one');
  const { guestAddress, gatewayAddress } = await addressesOf('one');
  expect([gatewayAddress, guestAddress]).toEqual(['fd12:3456:789a::2', 'fd12:3456:789a::3']);
  expect(await inGuest('one')).toEqual([LOOPBACK, `${asKernel(guestAddress)} eth0`].sort());
  expect(
    await fetched(
      'one',
      ...[`http://[${WEB6}]/`, `http://[${OTHER6}]/`, 'http://six.test/', '-6 http://both.test/'],
      ...['-4 http://both.test/', 'http://web.test/'],
    ),
  ).toEqual([
    ...[`[${WEB6}]:80`, `[${OTHER6}]:80`, `[${WEB6}]:80`, `[${WEB6}]:80`, `${WEB}:80`, `${WEB}:80`],
  ]);
  const refused = [
    ...[`[${WEB6}]:8080`, `[${LAN6}]`, `[${NEAR6}]`, `[${gatewayAddress}]`, `[${HOST6}]`],
    ...['[fd12:3456:789a::4]', '[::ffff:10.1.2.3]', '[64:ff9b::a01:203]', '[2002:a01:203::1]'],
  ].map((host) => `http://${host}/`);
  const began = performance.now();
  expect(await fetched('one', ...refused)).toEqual(refused.map(() => REFUSED));
  expect(performance.now() - began).toBeLessThan(8_000 * SCALE); // none of them timed out
  expect(await fetched('one', 'http://lan6.test/', 'http://web.test./')).toEqual([
    ...[NO_NAME, `${WEB}:80`],
  ]);
  await vi.waitFor(
    async () => {
      const seen = await world.records('one');
      const from = guestAddress;
      expect(seen).toEqual(
        expect.arrayContaining([
          expect.objectContaining({
            kind: 'connection',
            from,
            to: WEB6,
            toPort: 80,
            name: 'six.test',
          }),
          expect.objectContaining({ kind: 'connection', from, to: OTHER6, toPort: 80 }),
          expect.objectContaining({
            ...{ kind: 'denied', from, to: WEB6, toPort: 8080 },
            ...{ cause: 'policy', remedy: '--allow-port 8080' },
          }),
          expect.objectContaining({
            ...{ kind: 'denied', to: LAN6, cause: 'reserved', remedy: `--allow-cidr [${LAN6}]:80` },
          }),
          expect.objectContaining({
            ...{ kind: 'denied', to: NEAR6, cause: 'rule', remedy: `--allow-cidr [${NEAR6}]:80` },
            rule: "the host's own networks",
          }),
          expect.objectContaining({ kind: 'denied', to: gatewayAddress, cause: 'host' }),
          expect.objectContaining({ kind: 'denied', to: HOST6, cause: 'host' }),
          expect.objectContaining({ kind: 'dns', name: 'lan6.test', verdict: 'rebinding' }),
        ]),
      );
    },
    { timeout: 10_000 * SCALE },
  );
  expect(await agent('net', 'denied', 'one')).toContain(`-> [${WEB6}]:8080`);
  expect(await agent('net', 'show', 'one')).toContain(`${guestAddress}, gateway ${gatewayAddress}`);
});

it('goes out with the host’s address, and in nobody else’s name', async () => {
  expect(await agent('exec', 'one', '--', 'curl', '-sS', `http://[${WEB6}]/`)).toBe(
    `[${WEB6}]:80 ${HOST6}\n`,
  );
  const tried = await agent('exec', '--user', 'root', 'one', '--', 'python3', '-c', FORGE, WEB6);
  expect(tried).toBe('TimeoutError\n');
  await vi.waitFor(
    async () =>
      expect(await world.records('one', 'denied')).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ from: 'fd12:3456:789a::9', to: WEB6, cause: 'spoof' }),
        ]),
      ),
    { timeout: 10_000 * SCALE },
  );
});

it('is allowed more, and less, in IPv6 as in IPv4', async () => {
  await agent('net', 'set', 'one', '--allow-domain', 'six.test', '--allow-cidr', `[${LAN6}]:80`);
  const urls = [`http://[${OTHER6}]/`, 'http://six.test/', `http://[${LAN6}]/`, `http://${WEB}/`];
  expect(await fetched('one', ...urls)).toEqual([
    ...[REFUSED, `[${WEB6}]:80`, `[${LAN6}]:80`, REFUSED],
  ]);
  await agent('net', 'set', 'one', '--deny-cidr', `${WEB6}/128`);
  expect(await fetched('one', ...urls.slice(0, 3))).toEqual([`[${OTHER6}]:80`, REFUSED, REFUSED]);
  await agent('net', 'set', 'one', '--allow-cidr', `[${NEAR6}]:80`);
  expect(await fetched('one', `http://[${NEAR6}]/`)).toEqual([`[${NEAR6}]:80`]);
  await agent('net', 'set', 'one');
  expect(await fetched('one', `http://[${NEAR6}]/`)).toEqual([REFUSED]);
});

it('children, and VMs that are resumed, put back or started again, have it too', async () => {
  await agent('fork', 'one', '--name', 'two');
  const [one, two] = [await addressesOf('one'), await addressesOf('two')];
  expect(two.guestAddress).not.toBe(one.guestAddress);
  expect(await inGuest('two')).toEqual([LOOPBACK, `${asKernel(two.guestAddress)} eth0`].sort());
  expect(await fetched('two', 'http://six.test/', `http://[${one.guestAddress}]/`)).toEqual([
    ...[`[${WEB6}]:80`, REFUSED],
  ]);
  await vi.waitFor(
    async () =>
      expect(await world.records('two', 'denied')).toEqual(
        expect.arrayContaining([expect.objectContaining({ to: one.guestAddress, cause: 'vm' })]),
      ),
    { timeout: 10_000 * SCALE },
  );
  await agent('snapshot', 'create', 'two', 's');
  await agent('snapshot', 'restore', 'two', 's');
  expect(await fetched('two', 'http://six.test/')).toEqual([`[${WEB6}]:80`]);
  await agent('suspend', 'two');
  await agent('resume', 'two');
  expect(await fetched('two', 'http://six.test/')).toEqual([`[${WEB6}]:80`]);
  await agent('remove', '--force', 'two');
});

it('gets nowhere where somebody flushes the ruleset, and has its rules again by gc', async () => {
  await world.run('nft', 'flush', 'ruleset');
  const quick = (url: string) => `curl -s -m 3 -g '${url}' >/dev/null; echo $?`;
  const { gatewayAddress } = await addressesOf('one');
  const urls = [`http://[${WEB6}]/`, `http://[${LAN6}]/`, `http://[${HOST6}]/`, `http://${WEB}/`];
  const tried = await world.bash(
    'one',
    [...urls, `http://[${gatewayAddress}]/`].map(quick).join('\n'),
  );
  expect(tried).not.toMatch(/^0$/m);
  await agent('gc');
  expect(await fetched('one', 'http://six.test/', `http://[${LAN6}]/`)).toEqual([
    ...[`[${WEB6}]:80`, REFUSED],
  ]);
  await agent('remove', '--force', 'one');
});

it('a clone of a template without has it where it is told, and none else', LONG, async () => {
  await agent('template', 'create', '--network', 'nat-filtered', 'plain');
  await agent('clone', '--name', 'four', 'plain');
  expect((await world.info('four')).ipv6).toBeUndefined();
  expect(await inGuest('four')).toEqual([LOOPBACK]);
  expect(
    await fetched('four', `http://[${WEB6}]/`, 'http://six.test/', 'http://web.test/'),
  ).toEqual([...[REFUSED, NO_NAME, `${WEB}:80`]]);
  await expect(agent('net', 'allow', 'four', '--allow-cidr', LAN6)).rejects.toThrow('no IPv6');
  await agent('clone', '--name', 'six', '--ipv6', 'plain');
  expect(await inGuest('six')).toHaveLength(2);
  expect(await fetched('six', 'http://six.test/', 'http://web.test/')).toEqual([
    ...[`[${WEB6}]:80`, `${WEB}:80`],
  ]);
  await agent('stop', 'six');
  await agent('start', 'six');
  expect(await fetched('six', 'http://six.test/')).toEqual([`[${WEB6}]:80`]);
  await agent('remove', '--force', 'four', 'six');
  await agent('template', 'remove', 'plain');
});

it('a template has it, and its clones, but for those that are told not to', LONG, async () => {
  await agent('template', 'create', '--ipv6', 'both');
  await agent('clone', '--name', 'own', 'both');
  await agent('clone', '--name', 'none', '--no-ipv6', 'both');
  expect(await fetched('own', 'http://six.test/')).toEqual([`[${WEB6}]:80`]);
  expect(await inGuest('none')).toEqual([LOOPBACK]);
  expect(await fetched('none', 'http://six.test/', 'http://web.test/')).toEqual([
    ...[NO_NAME, `${WEB}:80`],
  ]);
  await agent('remove', '--force', 'own', 'none');
});

it('all of it is gone with the last VM and with the set-up', async () => {
  await vi.waitFor(
    async () => {
      expect(await world.traces()).toEqual({ taps: [], rules: [], services: [] });
      expect(await world.run('nft', 'list', 'tables')).not.toContain('qmp_agent_keep');
    },
    { timeout: 30_000 * SCALE, interval: 500 },
  );
  expect(await agent('setup', 'network', '--undo')).toMatch(/^undone: net\.ipv6/m);
  expect(await world.run('cat', '/proc/sys/net/ipv6/conf/all/forwarding')).toBe('0\n');
  expect(await world.run('ip', 'xfrm', 'policy')).toBe('');
});
