import { expect, it } from 'vitest';
import { hostNetworks, onLink } from '../../../src/network/host-networks.ts';

it('are global networks that are reached without a router, each once', () => {
  const routes = [
    { dst: 'default', gateway: 'fe80::1', dev: 'eth0' },
    { dst: 'default', dev: 'ppp0' },
    { dst: '2a00:1::/64', dev: 'eth0', protocol: 'kernel' },
    { dst: '2a00:1::/64', dev: 'wlan0', protocol: 'ra' },
    { dst: '2a00:1::9', dev: 'eth0' }, // within the one above
    { dst: '2a00:3::5', dev: 'wg0' },
    { dst: '2a00:3::5/128', dev: 'wg1' },
    { dst: '2a00:2::/48', gateway: 'fe80::2', dev: 'eth0' },
    { dst: '2a00:4::/48', nexthops: [{ gateway: 'fe80::2' }] },
    { dst: '2a00:5::/48', via: { family: 'inet6', host: 'fe80::2' }, dev: 'eth0' },
    { type: 'local', dst: '2a00:6::1', dev: 'lo' },
    { type: 'unreachable', dst: '2a00:7::/48', dev: 'lo' },
    { type: 'multicast', dst: 'ff00::/8', dev: 'eth0' },
    { dst: 'fe80::/64', dev: 'eth0' }, // reserved, as the next one
    { dst: 'fd00::/64', dev: 'eth0' },
    { dst: '2000::/3', dev: 'tun0' }, // leads everywhere
    { dst: '2a00:8::/127', dev: 'qmpa7' }, // a VM's
  ];
  expect(onLink(routes)).toEqual(['2a00:1::/64', '2a00:3::5']);
});

it('are asked of the kernel', async () => {
  expect(await hostNetworks()).toEqual(expect.any(Array));
});
