import { expect, it } from 'vitest';
import { ConfigError } from '../../../src/errors.ts';
import { parseAllPublished, parsePublished, publishedText } from '../../../src/network/publish.ts';

it('reads the host’s port and the guest’s', () => {
  expect(parsePublished('8080:80')).toEqual({
    ...{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 },
  });
  expect(parsePublished('0.0.0.0:53:5353/tcp')).toEqual({
    ...{ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 53, guestPort: 5353 },
  });
  expect(parsePublished('5353:53/udp')).toEqual({
    ...{ protocol: 'udp', hostAddress: '127.0.0.1', hostPort: 5353, guestPort: 53 },
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
  '80:80/sctp',
  '80:80/',
  '1:2:3:4',
])('publishes no port: %j', (text) => {
  expect(() => parsePublished(text)).toThrow(ConfigError);
});

it('one port of the host leads to one place', () => {
  expect(parseAllPublished(['8080:80', '0.0.0.0:8080:80'])).toHaveLength(2);
  expect(() => parseAllPublished(['8080:80', '127.0.0.1:8080:81'])).toThrow('published twice');
  expect(parseAllPublished(['53:53', '53:53/udp']).map(publishedText)).toEqual([
    '127.0.0.1:53 -> 53',
    '127.0.0.1:53 -> 53/udp',
  ]);
});
