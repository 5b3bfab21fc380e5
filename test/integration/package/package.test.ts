/** The package as a user gets it: packed, installed in an empty project, run. */
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

interface Packed {
  filename: string;
  size: number;
  files: { path: string; size: number }[];
}

describe('npm package', () => {
  let dir: string;
  let packed: Packed;
  const inProject = (command: string, args: string[]) =>
    execa(command, args, {
      cwd: dir,
      reject: false,
      timeout: 120_000,
      env: { NO_COLOR: '1', npm_config_update_notifier: 'false' },
    });

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'qmp-agent-package-'));
    const { stdout } = await execa('npm', [
      'pack',
      '--json',
      '--ignore-scripts',
      '--pack-destination',
      dir,
    ]);
    packed = (JSON.parse(stdout) as Packed[])[0]!;
    await writeFile(
      join(dir, 'package.json'),
      '{"name":"elsewhere","private":true,"type":"module"}\n',
    );
    // What the checkout's own install has cached is not fetched again.
    await execa(
      'npm',
      ['install', '--prefer-offline', '--no-audit', '--no-fund', `./${packed.filename}`],
      {
        cwd: dir,
        timeout: 180_000,
      },
    );
  });

  afterAll(async () => {
    await rm(dir, { recursive: true, force: true });
  });

  test('holds the build and nothing but the build', () => {
    const paths = packed.files.map((file) => file.path);
    const allowed = /^(?:dist\/.*|README\.md|LICENSE|CHANGELOG\.md|package\.json)$/;
    expect(paths.filter((path) => !allowed.test(path))).toEqual([]);
    expect(paths.filter((path) => /\.test\.|(?<!\.d)\.ts$|tsbuildinfo/.test(path))).toEqual([]);
    expect(paths).toContain('dist/src/index.js');
    expect(paths).toContain('dist/src/index.d.ts');
    expect(paths).toContain('dist/qmp/index.js');
    expect(packed.size).toBeLessThan(8 * 1024 * 1024);
  });

  test('holds what a guest boots: the init and the agent bundle', () => {
    const paths = packed.files.map((file) => file.path);
    expect(
      paths.filter((path) => /guest-agent\/.*(?:bundle|agent)[^/]*\.(?:c|m)?js$/.test(path)),
    ).not.toEqual([]);
    expect(paths.filter((path) => /firmware\/(?:.*\/)?init/.test(path))).not.toEqual([]);
  });

  test('holds all modules that its modules load', async () => {
    const home = join(dir, 'node_modules/qmp-agent');
    const missing: string[] = [];
    for (const { path } of packed.files.filter((file) => file.path.endsWith('.js'))) {
      const code = await readFile(join(home, path), 'utf8');
      for (const [, target = ''] of code.matchAll(/(?:from |import\()'(\.{1,2}\/[^']+)'/g)) {
        const loaded = join(home, path, '..', target);
        await access(loaded).catch(() => missing.push(`${path}: ${target}`));
      }
    }
    expect(missing).toEqual([]);
  });

  test('the command says its version', async () => {
    const result = await inProject('npx', ['--no-install', 'qmp-agent', '--version']);
    expect(result.stderr).toBe('');
    expect(result.stdout).toMatch(/^\d+\.\d+\.\d+$/);
    expect(result.exitCode).toBe(0);
  });

  test('a file of variables for the guest is none for Node on the host', async () => {
    await writeFile(join(dir, 'host.cjs'), "console.log('ran on the host')\n");
    await writeFile(join(dir, 'guest.env'), `NODE_OPTIONS=--require=${join(dir, 'host.cjs')}\n`);
    const command = join(dir, 'node_modules/.bin/qmp-agent');
    for (const file of ['guest.env', 'missing.env']) {
      const result = await inProject(command, ['exec', '--env-file', file, 'no-such-vm', 'true']);
      expect(result).toMatchObject({ exitCode: 125, stdout: '' });
      expect(result.stderr).toContain('qmp-agent: ');
    }
  });

  test('doctor runs and speaks JSON', async () => {
    const result = await inProject('npx', ['--no-install', 'qmp-agent', 'doctor', '--json']);
    const report = JSON.parse(result.stdout) as { checks?: unknown[] } | unknown[];
    const checks = Array.isArray(report) ? report : report.checks;
    expect(checks?.length).toBeGreaterThan(3);
    // 1 where the host lacks something, which doctor then names; never a crash.
    expect([0, 1]).toContain(result.exitCode);
  });

  test.each([
    ['qmp-agent', 'Vm'],
    ['qmp-agent/qmp', 'QmpClient'],
  ])('the library %s exports %s', async (specifier, name) => {
    const result = await inProject(process.execPath, [
      '--input-type=module',
      '--eval',
      `import * as library from '${specifier}'; console.log(typeof library.${name})`,
    ]);
    expect(result.stderr).toBe('');
    expect(result.stdout).toBe('function');
  });
});
