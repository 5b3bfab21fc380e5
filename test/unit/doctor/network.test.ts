import { expect, it } from 'vitest';
import { judgeNetwork } from '../../../src/doctor/network.ts';
import { ConfigError } from '../../../src/errors.ts';

const fine = {
  ...{ hasTun: true, forwards: true, pool: '10.210.0.0/16', routes: [], droppingChains: [] },
  filtersBridges: false,
  ...{ byDefault: 'auto', obstacle: undefined },
};

it('a host that is set up has nothing to be told', () => {
  expect(judgeNetwork(fine).map(({ status }) => status)).toEqual(['ok', 'ok', 'ok', 'ok']);
});

it('says what to do about each thing', () => {
  const checks = judgeNetwork({
    hasTun: false,
    forwards: false,
    pool: '10.210.0.0/16',
    routes: ['10.210.0.0/24 dev eth1'],
    droppingChains: ['ip filter FORWARD', 'inet firewalld filter_FORWARD'],
    filtersBridges: true,
    byDefault: 'auto',
    obstacle: { message: 'taps are out', hint: 'Let them in.' },
  });
  expect(checks.map(({ id, status }) => `${id} ${status}`)).toEqual([
    'network.default warn',
    'network.tun warn',
    'network.forwarding warn',
    'network.addresses warn',
    'network.firewall warn',
    'network.firewall warn',
    'network.bridge warn',
  ]);
  expect(JSON.stringify(checks)).toContain('qmp-agent setup network');
  expect(JSON.stringify(checks)).toContain('DOCKER-USER');
});

const ipv6 = {
  ...{ ula: 'fd12::/64', forwards: true, routes: [], deaf: [], hasDefaultRoute: true },
};

it('of IPv6 there is something to say where the host is set up for it', () => {
  const found = (more: object) =>
    judgeNetwork({ ...fine, ipv6: { ...ipv6, ...more } }).filter(({ id }) => id === 'network.ipv6');
  expect(found({})).toEqual([
    { id: 'network.ipv6', status: 'ok', found: expect.stringContaining('fd12::/64') },
  ]);
  const worst = { forwards: false, routes: ['fd12::/65 dev eth1'], hasDefaultRoute: false };
  const warned = (more: object) =>
    found(more).map(({ status, found: what, fix }) => [status, what, fix]);
  expect(warned({ ...worst, deaf: ['eth0'] })).toEqual([
    ['warn', expect.stringContaining('forward'), expect.stringContaining('setup network --ipv6')],
  ]);
  expect(warned({ ...worst, forwards: true, deaf: ['eth0.7'] })).toEqual([
    ['warn', expect.stringContaining('eth0.7'), 'sysctl -w net.ipv6.conf.eth0/7.accept_ra=2'],
  ]);
  expect(warned({ ...worst, forwards: true })).toEqual([
    ['warn', expect.stringContaining('fd12::/65 dev eth1'), expect.stringContaining('--ipv6 CIDR')],
  ]);
  expect(warned({ hasDefaultRoute: false })).toEqual([
    ['warn', expect.stringContaining('default route'), expect.any(String)],
  ]);
});

it('a pool that nobody can read is told of, and the rest as ever', () => {
  const pool = new ConfigError('the file says "x"', { field: 'network.pool', hint: 'Write it.' });
  const checks = judgeNetwork({ ...fine, pool });
  expect(checks.map(({ status }) => status)).toEqual(['ok', 'ok', 'ok', 'warn']);
  expect(checks[3]).toMatchObject({ found: 'the file says "x"', fix: 'Write it.' });
});

it('tells of bridges that a firewall sees only where that firewall drops anything', () => {
  const ids = (more: object) => judgeNetwork({ ...fine, ...more }).map(({ id }) => id);
  const droppingChains = ['ip filter FORWARD'];
  expect(ids({ filtersBridges: true })).not.toContain('network.bridge');
  expect(ids({ droppingChains })).not.toContain('network.bridge');
  expect(ids({ filtersBridges: true, droppingChains })).toContain('network.bridge');
});

it('says what VMs have by themselves, and why', () => {
  const obstacle = { message: 'taps are out', hint: 'Let them in.' };
  expect(judgeNetwork({ ...fine, obstacle })[0]).toMatchObject({
    status: 'warn',
    found: 'VMs are isolated where nothing else is asked for: taps are out',
    fix: 'Let them in.',
  });
  expect(judgeNetwork({ ...fine, obstacle, byDefault: 'isolated' })[0]).toMatchObject({
    status: 'ok',
    found: expect.stringMatching(/^VMs are isolated.*the configuration says so/),
  });
});
