import { describe, expect, it } from 'vitest';
import { privateWords, scrubUrls, type HostSettings } from '../../../firmware/host-apt.ts';
import { parseIndexTargets, sourcesList } from '../../../firmware/host-mirror.ts';

/** Domain of the public archive. */
const DEBIAN = 'debian.org';

describe('parseIndexTargets', () => {
  const line = (origin: string, label: string, uri: string): string => `${origin}|${label}|${uri}`;

  it('takes the archives that their Release files call Debian’s', () => {
    const text = [
      line('Docker', 'Docker CE', 'https://download.docker.com/linux/debian/'),
      line('Debian', 'Debian', 'http://mirror.example/debian/'),
      line('Debian', 'Debian', 'http://second.example/debian/'),
      line('Debian', 'Debian-Security', 'http://mirror.example/debian-security/'),
      line('Debian Backports', 'Debian Backports', 'http://mirror.example/debian/'),
      '',
    ].join('\n');
    expect(parseIndexTargets(text)).toEqual({
      archive: 'http://mirror.example/debian',
      security: 'http://mirror.example/debian-security',
    });
  });

  it('fills up with the public address of what is not mirrored', () => {
    expect(parseIndexTargets(line('Debian', 'Debian', 'https://m.example/d'))).toEqual({
      archive: 'https://m.example/d',
      security: 'http://security.' + DEBIAN + '/debian-security',
    });
  });

  it.each([
    ['the public archive', line('Debian', 'Debian', 'http://deb.' + DEBIAN + '/debian/')],
    ['one of its national names', line('Debian', 'Debian', 'http://ftp.de.debian.org/debian/')],
    ['a medium', line('Debian', 'Debian', 'cdrom://[Debian]/')],
    ['another distribution', line('Ubuntu', 'Ubuntu', 'http://archive.example.com/ubuntu/')],
    ['nothing', ''],
  ])('has no mirror where the host uses %s', (_, text) => {
    expect(parseIndexTargets(text)).toBeUndefined();
  });
});

describe('sourcesList', () => {
  it('names updates and security where a suite has them', () => {
    expect(sourcesList('trixie')).toBe(
      [
        'deb http://deb.' + DEBIAN + '/debian trixie main',
        'deb http://deb.' + DEBIAN + '/debian trixie-updates main',
        'deb http://security.' + DEBIAN + '/debian-security trixie-security main\n',
      ].join('\n'),
    );
    expect(sourcesList('sid')).toBe('deb http://deb.' + DEBIAN + '/debian sid main\n');
    const mirror = { archive: 'http://m/d', security: 'http://m/s' };
    expect(sourcesList('sid', mirror, '/k.gpg')).toBe(
      'deb [signed-by=/k.gpg] http://m/d sid main\n',
    );
  });
});

describe('privateWords', () => {
  const settings = (o: Partial<HostSettings>): HostSettings => ({
    proxyEnv: {},
    aptConf: '',
    caBundle: undefined,
    mirror: undefined,
    localCertificates: new Map(),
    ...o,
  });

  it('are the addresses of proxies and mirrors, whole and by name', () => {
    const words = privateWords(
      settings({
        proxyEnv: { http_proxy: 'http://me:pw@proxy.example:3128/', no_proxy: 'localhost' },
        aptConf: 'Acquire::http::Proxy "http://apt.example:80";\nAcquire::Retries "3";\n',
        mirror: { archive: 'https://mirror.example/debian', security: 'http://[fd00::1]/s' },
      }),
    );
    expect(words).toEqual(
      expect.arrayContaining([
        'http://me:pw@proxy.example:3128',
        'proxy.example',
        'apt.example',
        'mirror.example',
        'https://mirror.example/debian',
        '[fd00::1]',
      ]),
    );
    expect(words).not.toContain('localhost');
    expect(words.findIndex((word) => word.includes('me:pw'))).toBeLessThan(
      words.indexOf('proxy.example'),
    );
  });

  it('leave the public archive readable', () => {
    const words = privateWords(
      settings({
        mirror: { archive: 'http://m.example/d', security: 'http://security.' + DEBIAN + '/x' },
      }),
    );
    expect(words).not.toContain('security.' + DEBIAN + '');
  });
});

describe('scrubUrls', () => {
  it('takes passwords out of URLs', () => {
    expect(scrubUrls('E: http://user:pw@host/x and https://host/y, a@b')).toBe(
      'E: http://***@host/x and https://host/y, a@b',
    );
  });
});
