import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseLayer } from '../../../src/config/file-layer.ts';
import { describeOrigin, envLayer, envName, flagLayer } from '../../../src/config/layers.ts';
import { loadConfig, mergeLayers } from '../../../src/config/load.ts';
import { resolvePaths } from '../../../src/config/paths.ts';
import { DEFAULT_CONFIG, FIELDS } from '../../../src/config/schema.ts';
import { ConfigError } from '../../../src/errors.ts';

const SYSTEM = '/etc/qmp-agent/config.yaml';
const USER = '/home/u/.config/qmp-agent/config.yaml';
const paths = resolvePaths({}, { uid: 0, home: '/root' });

async function merge(o: {
  system?: string;
  user?: string;
  env?: NodeJS.ProcessEnv;
  flags?: [string, string, unknown, string][];
}) {
  return mergeLayers(
    [
      await parseLayer(o.system ?? '', SYSTEM),
      await parseLayer(o.user ?? '', USER),
      envLayer(o.env ?? {}),
      flagLayer((o.flags ?? []).map(([a, b, value, flag]) => ({ path: [a, b], value, flag }))),
    ],
    paths,
    '/home/u',
  );
}

/** The error that loading ends with. */
async function failure(o: Parameters<typeof merge>[0]): Promise<ConfigError> {
  const error: unknown = await merge(o).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ConfigError);
  return error as ConfigError;
}

describe('order of the sources', () => {
  const system = 'vm:\n  # comment\n  memoryMib: 512\n  vcpus: 2\n';
  const user = 'vm: {memoryMib: 768M}\n';
  const env = { QMP_AGENT_VM_MEMORY_MIB: '2G' };
  const flags: [string, string, unknown, string][] = [['vm', 'memoryMib', '3G', '--memory']];

  it('takes defaults where nobody says anything', async () => {
    const { config, origins } = await merge({});
    expect(config).toEqual(DEFAULT_CONFIG);
    expect(new Set([...origins.values()].map(describeOrigin))).toEqual(new Set(['default']));
    expect([...origins.keys()]).toEqual(FIELDS.map((field) => field.path.join('.')));
  });

  it('lets each source override the weaker ones, and names it', async () => {
    const steps = [
      [{ system }, 512, `${SYSTEM}:3`],
      [{ system, user }, 768, `${USER}:1`],
      [{ system, user, env }, 2048, 'QMP_AGENT_VM_MEMORY_MIB'],
      [{ system, user, env, flags }, 3072, '--memory'],
    ] as const;
    for (const [sources, memoryMib, origin] of steps) {
      const { config, origins } = await merge({
        ...sources,
        flags: 'flags' in sources ? flags : [],
      });
      expect(config.vm.memoryMib).toBe(memoryMib);
      expect(describeOrigin(origins.get('vm.memoryMib')!)).toBe(origin);
      expect(config.vm.vcpus).toBe(2);
      expect(describeOrigin(origins.get('vm.vcpus')!)).toBe(`${SYSTEM}:4`);
    }
  });

  it('replaces lists, and reads them with commas from text', async () => {
    const { config } = await merge({
      system: 'log:\n  trace: [qmp, agent]\n',
      env: { QMP_AGENT_LOG_TRACE: 'argv,qmp' },
    });
    expect(config.log.trace).toEqual(['argv', 'qmp']);
  });

  it('ignores empty variables and those that belong to no section', async () => {
    const { config } = await merge({ env: { QMP_AGENT_VM_VCPUS: '', QMP_AGENT_E2E: '1' } });
    expect(config.vm.vcpus).toBe(1);
  });

  it('takes a section whose settings are commented out for an empty one', async () => {
    const { config } = await merge({ system: 'vm:\n#  vcpus: 2\nlog:\n  level: info\n' });
    expect(config.vm.vcpus).toBe(1);
    expect(config.log.level).toBe('info');
  });

  it('applies state.* to the directories, relative to the file that names them', async () => {
    const { paths: found } = await merge({
      system: 'state: {dataDir: vms, cacheDir: ~/cache}',
      env: { QMP_AGENT_STATE_RUNTIME_DIR: '/rt' },
    });
    expect(found).toMatchObject({
      dataDir: '/etc/qmp-agent/vms',
      cacheDir: '/home/u/cache',
      runtimeDir: '/rt',
    });
  });
});

describe('what is wrong is named', () => {
  it.each([
    [
      { system: 'vm:\n  memroyMib: 3\n' },
      'vm.memroyMib',
      `${SYSTEM}:2`,
      'did you mean vm.memoryMib?',
    ],
    [{ system: 'vmm:\n  vcpus: 3\n' }, 'vmm', `${SYSTEM}`, 'did you mean vm?'],
    [{ user: 'vcpus: 3\n' }, 'vcpus', `${USER}:1`, 'did you mean vm.vcpus?'],
    [{ user: 'log:\n  xyzzy: 3\n' }, 'log.xyzzy', `${USER}:2`, 'the settings of log are level'],
    [
      { env: { QMP_AGENT_VM_MEMORY: '2G' } },
      'QMP_AGENT_VM_MEMORY',
      'QMP_AGENT_VM_MEMORY',
      'did you mean QMP_AGENT_VM_MEMORY_MIB?',
    ],
    [{ system: 'vm:\n  vcpus: 0\n' }, 'vm.vcpus', `${SYSTEM}:2`, 'from 1 to 64'],
    [{ system: 'vm:\n  memoryMib: lots\n' }, 'vm.memoryMib', '"lots"', '512M or 2G'],
    [{ env: { QMP_AGENT_VM_ACCEL: 'hvf' } }, 'vm.accel', 'QMP_AGENT_VM_ACCEL', 'auto, kvm, tcg'],
    [{ flags: [['vm', 'diskMib', '1K', '--disk']] }, '--disk', '--disk = "1K"', 'MiB'],
    [{ system: 'log: {trace: [qmp, foo]}' }, 'log.trace', `${SYSTEM}:1`, 'qmp, argv, agent'],
    [{ system: 'vm: 3' }, 'vm', `vm (${SYSTEM}:1)`, 'the settings of vm are'],
  ] as [Parameters<typeof merge>[0], string, string, string][])(
    '%j: %s',
    async (sources, field, inMessage, inHint) => {
      const error = await failure(sources);
      expect(error.field).toBe(field);
      expect(error.message).toContain(inMessage);
      expect(error.hint).toContain(inHint);
    },
  );

  it('tells all problems at once, up to a limit', async () => {
    const two = await failure({ system: 'vm: {vcpus: 0, accel: x}' });
    expect(two.message).toMatch(/vm\.vcpus.*; vm\.accel/);
    const keys = Array.from({ length: 8 }, (_, i) => `wrong${i}: 1`).join(', ');
    expect((await failure({ system: `vm: {${keys}}` })).message).toMatch(/and 3 more$/);
  });

  it('is no way to reach prototypes', async () => {
    await failure({ system: '__proto__: {polluted: true}' });
    await failure({ system: 'vm: {__proto__: {polluted: true}}' });
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it.each([
    ['vm: [', /config\.yaml:1: /],
    ['- a\n- b\n', /config\.yaml:1: not a map/],
    ['vm: {vcpus: 1}\nvm: {vcpus: 2}\n', /config\.yaml:2: .*unique/i],
  ])('broken YAML %j', async (text, message) => {
    await expect(parseLayer(text, SYSTEM)).rejects.toThrow(message);
  });
});

describe('names of variables', () => {
  it('follow from the setting', () => {
    expect(envName(['vm', 'memoryMib'])).toBe('QMP_AGENT_VM_MEMORY_MIB');
    expect(envName(['state', 'dataDir'])).toBe('QMP_AGENT_STATE_DATA_DIR');
  });
  it('are unique', () => {
    const names = FIELDS.map((field) => envName(field.path));
    expect(new Set(names).size).toBe(names.length);
  });
});

describe('loadConfig', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qmp-agent-config-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it('reads the given file instead of the others', async () => {
    const file = join(dir, 'c.yaml');
    await writeFile(file, 'vm:\n  vcpus: 3\n');
    const { config, paths: found } = await loadConfig({ env: {}, configFile: file });
    expect(config.vm.vcpus).toBe(3);
    expect(found.configFiles).toEqual([file]);
  });

  it('wants the given file to be there', async () => {
    await expect(loadConfig({ env: {}, configFile: join(dir, 'no.yaml') })).rejects.toThrow(
      /cannot read .*no\.yaml: ENOENT/,
    );
  });

  it('refuses a directory and a huge file', async () => {
    await expect(loadConfig({ env: {}, configFile: dir })).rejects.toThrow(ConfigError);
    const file = join(dir, 'huge.yaml');
    await writeFile(file, '#'.repeat(1024 * 1024 + 1));
    await expect(loadConfig({ env: {}, configFile: file })).rejects.toThrow(/larger than/);
  });
});

it('takes a network by a word, or a bridge by its name', async () => {
  const vm = (network: string) => merge({ flags: [['vm', 'network', network, '--network']] });
  expect((await vm('bridge=br0')).config.vm.network).toBe('bridge=br0');
  expect((await vm('user')).config.vm.network).toBe('user');
  await expect(vm('lan')).rejects.toMatchObject({
    message: '--network = "lan": no network',
    hint: expect.stringContaining('bridge='),
  });
  const env = { QMP_AGENT_NETWORK_DEFAULT: 'isolated', QMP_AGENT_NETWORK_POOL: '10.9.0.0/16' };
  const { config } = await merge({ env });
  expect(config.network).toEqual({ default: 'isolated', pool: '10.9.0.0/16' });
  expect((await merge({})).config).toMatchObject({ network: { default: 'auto' } });
});
