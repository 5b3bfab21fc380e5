import { expect, it } from 'vitest';
import { settingsNamedIn, settingsOf, settingsText } from '../../../src/network/host-settings.ts';

it('what is written is read, and the default is not named', () => {
  for (const pool of ['10.210.0.0/16', '192.168.64.0/20']) {
    for (const ula of [undefined, 'fd12:3456:789a::/64']) {
      const text = settingsText({ pool, ula });
      expect(settingsOf(text)).toEqual({ pool, ula });
      expect(text).toMatch(/^net\.ipv4\.ip_forward = 1$/m);
    }
  }
  expect(settingsText({ pool: '10.210.0.0/16', ula: undefined })).not.toContain('network.');
});

it('only a host whose VMs may have IPv6 forwards that, too', () => {
  const text = (ula?: string) => settingsText({ pool: '10.210.0.0/16', ula });
  expect(text('fd12:3456:789a::/64')).toMatch(/^net\.ipv6\.conf\.all\.forwarding = 1$/m);
  expect(text()).not.toContain('ipv6');
});

it('what another has written, or has added to, is none of ours', () => {
  const text = settingsText({ pool: '192.168.64.0/20', ula: 'fd12:3456:789a::/64' });
  for (const other of ['', 'net.ipv4.ip_forward = 1\n', `${text}kernel.panic = 1\n`])
    expect(settingsOf(other)).toBeUndefined();
});

it('pools that are named hold, whatever somebody has done to the rest of the file', () => {
  const settings = { pool: '192.168.64.0/20', ula: 'fd12:3456:789a::/64' };
  const text = settingsText(settings);
  for (const other of [`${text}kernel.panic = 1\n`, text.replace('Written', 'Once written')])
    expect(settingsNamedIn(other)).toEqual(settings);
  expect(settingsNamedIn(text.replaceAll('\n', '\r\n'))).toEqual(settings);
  expect(settingsNamedIn('net.ipv4.ip_forward = 1\n')).toEqual({ pool: '10.210.0.0/16' });
});
