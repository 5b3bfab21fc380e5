import { expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { parseAllPublished, parsePublished } from '../../../src/network/publish.ts';

it('reads the host’s port and the guest’s', () => {
  expect(parsePublished('8080:80')).toEqual({
    ...{ hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 },
  });
  expect(parsePublished('0.0.0.0:53:5353/tcp')).toEqual({
    ...{ hostAddress: '0.0.0.0', hostPort: 53, guestPort: 5353 },
  });
});

it.each([
  '',
  '80',
  ':80',
  '0:80',
  '80:0',
  '70000:80',
  'host:80:80',
  '1.2.3:80:80',
  '80:80/udp',
  '1:2:3:4',
])('publishes no port: %j', (text) => {
  expect(() => parsePublished(text)).toThrow(ConfigError);
});

it('one port of the host leads to one place', () => {
  expect(parseAllPublished(['8080:80', '0.0.0.0:8080:80'])).toHaveLength(2);
  expect(() => parseAllPublished(['8080:80', '127.0.0.1:8080:81'])).toThrow('published twice');
});
