import { expect, it } from 'vitest';
import { poolNamedIn, poolOf, settingsText } from '../../../src/network/host-settings.ts';

it('what is written is read, and the default is not named', () => {
  for (const pool of ['10.210.0.0/16', '192.168.64.0/20']) {
    expect(poolOf(settingsText(pool))).toBe(pool);
    expect(settingsText(pool)).toMatch(/^net\.ipv4\.ip_forward = 1$/m);
  }
  expect(settingsText('10.210.0.0/16')).not.toContain('network.pool');
});

it('what another has written, or has added to, is none of ours', () => {
  const text = settingsText('192.168.64.0/20');
  for (const other of ['', 'net.ipv4.ip_forward = 1\n', `${text}kernel.panic = 1\n`])
    expect(poolOf(other)).toBeUndefined();
});

it('a pool that is named holds, whatever somebody has done to the rest of the file', () => {
  const text = settingsText('192.168.64.0/20');
  for (const other of [`${text}kernel.panic = 1\n`, text.replace('Written', 'Once written')])
    expect(poolNamedIn(other)).toBe('192.168.64.0/20');
  expect(poolNamedIn(text.replaceAll('\n', '\r\n'))).toBe('192.168.64.0/20');
  expect(poolNamedIn('net.ipv4.ip_forward = 1\n')).toBe('10.210.0.0/16');
});
