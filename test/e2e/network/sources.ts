/**
 * Where programs get their sources from, by servers of real software: repositories by git's own CGI program and by
 * ssh, a registry for npm and an index for pip as files. Busybox is the web server, dropbear the ssh server; what
 * they serve is made here.
 */
import { execFileSync } from 'node:child_process';
import { appendFile, chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { GIT, NPM, PIP, type World } from './world.ts';

/** What a repository, a package of npm's and one of pip's say. */
export const CONTENT = 'from the server';

const REPOSITORY = `
export HOME="$PWD"
git init -q -b main work
cd work
echo '${CONTENT}' >README
head -c 300000 /dev/urandom >data
git add .
git -c user.name=test -c user.email=test@git.test commit -q -m first
cd ..
git clone -q --bare work project.git
`;
const WHEEL = `
import zipfile
with zipfile.ZipFile("tiny_wheel-1.0-py3-none-any.whl", "w") as wheel:
    info = "tiny_wheel-1.0.dist-info"
    wheel.writestr("tiny_wheel.py", "said = '${CONTENT}'\\n")
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny-wheel\\nVersion: 1.0\\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{info}/RECORD", "tiny_wheel.py,,\\n" + "".join(f"{info}/{n},,\\n" for n in ("METADATA", "WHEEL", "RECORD")))
`;
/** In a mount namespace of its own, where the home directory of root is one that has the test's keys. */
const SSH_SERVER = `
mount --bind "$1/home" "$2"
exec dropbear -F -E -m -s -j -k -r "$1/host-key" -P "$1/dropbear.pid" -p ${GIT}:22
`;

/** See above. They end with their world. */
export class Sources {
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async create(world: World): Promise<Sources> {
    const dir = join(world.box.dir, 'sources');
    const sources = new Sources(dir);
    await sources.#makeRepository();
    await sources.#makeNpmRegistry();
    await sources.#makePipIndex();
    await sources.#makeSshHome();
    for (const [address, root] of [
      [GIT, 'git'],
      [NPM, 'npm'],
      [PIP, 'pip'],
    ]) {
      const httpd = `echo ready; exec busybox httpd -f -p ${address}:80 -h "$1"`;
      await world.serve('sh', '-c', httpd, 'httpd', join(dir, root!));
    }
    const ssh = ['unshare', '--mount', 'sh', '-ec', SSH_SERVER, 'ssh'] as const;
    await world.serve(...ssh, dir, homedir());
    return sources;
  }

  /** The repository, for ssh. */
  get repository(): string {
    return join(this.#dir, 'project.git');
  }

  /** Lets the owner of a key in by ssh. */
  async authorize(publicKey: string): Promise<void> {
    await appendFile(join(this.#dir, 'home/.ssh/authorized_keys'), publicKey);
  }

  async #makeRepository(): Promise<void> {
    const scripts = join(this.#dir, 'git/cgi-bin');
    await mkdir(scripts, { recursive: true });
    this.#make('sh', '-ec', REPOSITORY);
    const program = join(scripts, 'git');
    const env = `GIT_PROJECT_ROOT='${this.#dir}' GIT_HTTP_EXPORT_ALL=1`;
    await writeFile(program, `#!/bin/sh\n${env} exec git http-backend\n`);
    await chmod(program, 0o755);
  }

  /** `tiny-app`, which depends on `tiny-lib`. */
  async #makeNpmRegistry(): Promise<void> {
    await mkdir(join(this.#dir, 'npm/tarballs'), { recursive: true });
    const packages = [
      { name: 'tiny-lib', version: '1.0.0', main: 'index.js' },
      {
        name: 'tiny-app',
        version: '1.0.0',
        main: 'index.js',
        dependencies: { 'tiny-lib': '^1.0.0' },
      },
    ];
    for (const manifest of packages) {
      const { name, version } = manifest;
      const source = join(this.#dir, name);
      await mkdir(source);
      await writeFile(join(source, 'package.json'), JSON.stringify(manifest));
      const code = name === 'tiny-lib' ? `'${CONTENT}'` : "require('tiny-lib')";
      await writeFile(join(source, 'index.js'), `module.exports = ${code};\n`);
      const pack = ['pack', '--json', '--offline', '--pack-destination', 'npm/tarballs', source];
      const [packed] = JSON.parse(this.#make('npm', ...pack)) as [
        { filename: string; integrity: string; shasum: string },
      ];
      const { filename, integrity, shasum } = packed;
      const dist = { tarball: `http://npm.test/tarballs/${filename}`, integrity, shasum };
      const metadata = {
        name,
        'dist-tags': { latest: version },
        versions: { [version]: { ...manifest, dist } },
      };
      await writeFile(join(this.#dir, 'npm', name), JSON.stringify(metadata));
    }
  }

  async #makePipIndex(): Promise<void> {
    const page = join(this.#dir, 'pip/simple/tiny-wheel');
    await mkdir(page, { recursive: true });
    this.#make('python3', '-c', WHEEL);
    const file = 'tiny_wheel-1.0-py3-none-any.whl';
    await writeFile(join(this.#dir, 'pip', file), await readFile(join(this.#dir, file)));
    await writeFile(
      join(page, 'index.html'),
      `<!DOCTYPE html><html><body><a href="../../${file}">${file}</a></body></html>`,
    );
  }

  async #makeSshHome(): Promise<void> {
    await mkdir(join(this.#dir, 'home/.ssh'), { recursive: true, mode: 0o700 });
    await writeFile(join(this.#dir, 'home/.ssh/authorized_keys'), '', { mode: 0o600 });
    this.#make('dropbearkey', '-t', 'ed25519', '-f', join(this.#dir, 'host-key'));
  }

  #make(program: string, ...args: string[]): string {
    const env = { ...process.env, HOME: this.#dir, npm_config_cache: join(this.#dir, 'npm-cache') };
    return execFileSync(program, args, {
      ...{ cwd: this.#dir, env, encoding: 'utf8' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }
}
