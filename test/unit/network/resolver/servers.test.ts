import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HostError } from '../../../../src/errors.ts';
import { parseResolvConf, ServerList } from '../../../../src/network/resolver/servers.ts';

describe('resolv.conf', () => {
  it('names servers, with a port where one is given', () => {
    const text = [
      '# nameserver 192.0.2.9',
      'search example.org',
      'nameserver 192.0.2.1',
      'nameserver\t[2001:db8::1]:5353',
      'nameserver 192.0.2.2:5354  # the second',
      'nameserver 192.0.2.3#5355',
      'nameserver fe80::1%eth0',
      'options ndots:5',
    ].join('\n');
    expect(parseResolvConf(text)).toEqual([
      { address: '192.0.2.1', port: 53 },
      { address: '2001:db8::1', port: 5353 },
      { address: '192.0.2.2', port: 5354 },
      { address: '192.0.2.3', port: 5355 },
    ]);
    expect(parseResolvConf('nameserver fe80::1%eth0')).toEqual([
      { address: 'fe80::1%eth0', port: 53 },
    ]);
  });

  it('may hold what is no server', () => {
    const text = 'nameserver\nnameserver dns.example\nnameserver 1.2.3.4:99999\nnameserver 1.2.3\n';
    expect(parseResolvConf(text)).toEqual([]);
  });
});

describe('ServerList', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qa-resolv-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it('refuses what is no server', () => {
    expect(() => ServerList.of([], () => 0)).toThrow(/0 servers/);
    expect(() => ServerList.of(['1.1.1.1', 'dns.example'], () => 0)).toThrow(/dns\.example/);
  });

  it('puts the one that answered in front, for a minute', () => {
    let now = 0;
    const list = ServerList.of(['192.0.2.1', '192.0.2.2', '192.0.2.3'], () => now);
    const [, second] = list.ordered();
    list.prefer(second!);
    expect(list.ordered().map(({ address }) => address)).toEqual([
      '192.0.2.2',
      '192.0.2.3',
      '192.0.2.1',
    ]);
    now = 30_000;
    list.prefer(second!); // it answered again: the first one is to be tried all the same
    now = 60_000;
    expect(list.ordered()[0]?.address).toBe('192.0.2.1');
  });

  it('follows its file, and keeps what it knew where that is empty', async () => {
    const path = join(dir, 'resolv.conf');
    let now = 0;
    await writeFile(path, 'nameserver 192.0.2.1\n');
    await utimes(path, 1, 1);
    const list = await ServerList.fromFile(path, () => now);
    const write = async (text: string, time: number) => {
      await writeFile(path, text);
      await utimes(path, time, time);
      now += 5_000;
    };
    await write('# nothing\n', 2);
    expect(list.ordered()).toMatchObject([{ address: '192.0.2.1' }]);
    await write('nameserver 192.0.2.7\n', 3);
    await vi.waitFor(() => expect(list.ordered()).toMatchObject([{ address: '192.0.2.7' }]));
    await rm(path);
    now += 5_000;
    expect(list.ordered()).toMatchObject([{ address: '192.0.2.7' }]);
  });

  it('cannot be made of a file without servers', async () => {
    const path = join(dir, 'resolv.conf');
    await expect(ServerList.fromFile(path, () => 0)).rejects.toThrow(HostError);
    await writeFile(path, 'search example.org\n');
    await expect(ServerList.fromFile(path, () => 0)).rejects.toThrow(/no name server/);
  });
});
