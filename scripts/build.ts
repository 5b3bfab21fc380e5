/** `npm run build`: everything that the package ships, into `dist/`. */
import { execFileSync } from 'node:child_process';
import { build } from 'esbuild';
import { chmod, cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AGENT_FILE, ECHO_FILE, agentBuildOptions } from '../guest-agent/bundle.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');

await rm(dist, { recursive: true, force: true });
const tsc = join(root, 'node_modules/typescript/bin/tsc');
execFileSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], {
  stdio: 'inherit',
});
await finishImports(dist);

const manifest = await readFile(join(root, 'package.json'), 'utf8');
const { version } = JSON.parse(manifest) as { version: string };
for (const [source, built] of [
  ['main.ts', AGENT_FILE],
  ['echo.ts', ECHO_FILE],
] as const) {
  await build({
    ...agentBuildOptions(join(root, 'guest-agent', source), version),
    outfile: join(dist, 'guest-agent', built),
  });
}
await copyAssets();
await makeCommand(join(dist, 'src/cli/main.js'));

/**
 * tsc 6.0 leaves the extension in `import('./x.ts')` where the function has an `await using` that it
 * compiles down (`rewriteRelativeImportExtensions` sees the code before that).
 */
async function finishImports(dir: string): Promise<void> {
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.js')) continue;
    const path = join(entry.parentPath, entry.name);
    const code = await readFile(path, 'utf8');
    const finished = code.replaceAll(/\bimport\('(\.{1,2}\/[^']+)\.ts'\)/g, "import('$1.js')");
    if (finished !== code) await writeFile(path, finished);
  }
}

/** What `firmware/` holds besides TypeScript: the init, hooks of image builds. */
async function copyAssets(): Promise<void> {
  const firmware = join(root, 'firmware');
  for (const entry of await readdir(firmware, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name.endsWith('.ts')) continue;
    const from = join(entry.parentPath, entry.name);
    const to = join(dist, 'firmware', from.slice(firmware.length));
    await mkdir(join(to, '..'), { recursive: true });
    await cp(from, to);
  }
}

/** npm links the command to this file, so it has to be one that the kernel can start. */
async function makeCommand(path: string): Promise<void> {
  const script = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (script === undefined) return;
  // `--`: see there
  const shebang = '#!/usr/bin/env -S node --\n';
  await writeFile(path, script.startsWith('#!') ? script : shebang + script);
  await chmod(path, 0o755);
}
