import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makePolicy } from '../../../src/network/policy.ts';
import { hostsIn, listPresets, presetHosts } from '../../../src/network/presets.ts';

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'qmp-agent-presets-'));
});
afterAll(() => rm(home, { recursive: true }));

it('every preset is a list of names that a policy takes', async () => {
  expect(listPresets().map(({ name }) => name)).toEqual(
    expect.arrayContaining(['npm', 'pip', 'cargo', 'apt', 'git', 'anthropic', 'openai']),
  );
  for (const { name, about } of listPresets()) {
    expect(about).not.toBe('');
    const env = { PATH: process.env['PATH'] };
    // Which package hosts a client uses is for the client to say, and not every host has it.
    const hosts = await presetHosts(name, { home: '/nonexistent', env }).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'ERR_CONFIG', value: name });
      return [];
    });
    const names = hosts.filter((host) => !/^[\d.]+(:\d+)?$/.test(host));
    expect(() => makePolicy({ allowDomains: names })).not.toThrow();
  }
});

it('a client’s own settings say where its packages are', async () => {
  await writeFile(
    join(home, '.npmrc'),
    '//npm.example/:_authToken=secret\nregistry=https://npm.example/api/\n@own:registry = http://10.9.8.7:4873/\n',
  );
  await mkdir(join(home, '.config/pip'), { recursive: true });
  await writeFile(
    join(home, '.config/pip/pip.conf'),
    '[global]\nindex-url = https://user:pass@pip.example/simple\n',
  );
  expect(await presetHosts('npm', { home, env: {} })).toEqual(['npm.example', '10.9.8.7:4873']);
  expect(await presetHosts('pip', { home, env: { UV_INDEX_URL: 'https://uv.example' } })).toEqual(
    expect.arrayContaining(['uv.example', 'pip.example']),
  );
});

it('a preset that is not there is refused with those that are', async () => {
  for (const name of ['nothing', 'toString', '']) {
    await expect(presetHosts(name)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      hint: expect.stringContaining('npm, pip'),
    });
  }
});

it('finds the hosts of URLs', () => {
  expect(
    hostsIn(
      'deb [arch=amd64] http://a.example/debian stable main\nURIs: https://b.example:8443/x http://a.example',
    ),
  ).toEqual(['a.example', 'b.example:8443']);
  expect(hostsIn('http://[::1]/ nothing http:// ftp://c.example')).toEqual([]);
});
