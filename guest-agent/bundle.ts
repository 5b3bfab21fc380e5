/**
 * What has to be in a guest so that the agent runs there: one script and ffi-rs's native binary
 * beside it. From `dist` the script is the one that `scripts/build.ts` made; from a source checkout it
 * is bundled on the fly.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { BuildOptions, Plugin } from 'esbuild';

/** The agent's script inside the guest. */
export const AGENT_FILE = 'agent.cjs';
/** The built echo of `bench exec`, beside the built agent; in the guest it takes the agent's name. */
export const ECHO_FILE = 'echo.cjs';
/** ffi-rs's native binary inside the guest, beside {@link AGENT_FILE}. */
export const FFI_FILE = 'ffi-rs.linux-x64-gnu.node';

/** One file of the agent. */
export interface AgentFile {
  /** File name, without directories. */
  readonly name: string;
  /** Permission bits. */
  readonly mode: number;
  readonly data: Buffer;
}

/** The agent, ready to be put into an initramfs or image. */
export interface AgentFiles {
  /** Of names, modes and contents: changes when the agent changes. SHA-256, hex. */
  readonly hash: string;
  readonly files: readonly AgentFile[];
}

/**
 * The agent's files.
 * @throws Error where this is a source checkout without `dist` and without esbuild
 */
export function agentFiles(): Promise<AgentFiles> {
  return guestFiles('main.ts', AGENT_FILE);
}

/** The raw echo that `bench exec` boots in the agent's place. @throws Error as {@link agentFiles} */
export function echoFiles(): Promise<AgentFiles> {
  return guestFiles('echo.ts', ECHO_FILE);
}

/** The init starts {@link AGENT_FILE}, whatever is in it. */
async function guestFiles(source: string, built: string): Promise<AgentFiles> {
  const [script, ffi] = await Promise.all([guestScript(source, built), readFile(ffiBinaryPath())]);
  const files: AgentFile[] = [
    { name: AGENT_FILE, mode: 0o755, data: script },
    { name: FFI_FILE, mode: 0o644, data: ffi },
  ];
  const hash = createHash('sha256');
  for (const { name, mode, data } of files) {
    hash.update(`${name} ${mode} ${data.length}\n`).update(data);
  }
  return { hash: hash.digest('hex'), files };
}

/** Where npm put ffi-rs's native binary for x86-64 and glibc, which is what guests are. */
export function ffiBinaryPath(): string {
  const fromFfi = createRequire(createRequire(import.meta.url).resolve('ffi-rs'));
  return fromFfi.resolve('@yuuang/ffi-rs-linux-x64-gnu');
}

async function guestScript(source: string, built: string): Promise<Buffer> {
  const here = new URL('.', import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return readFile(new URL(built, here));
  const { build } = await import('esbuild').catch((cause: unknown) => {
    throw new Error('the agent cannot be bundled from source without esbuild: run `npm ci`', {
      cause,
    });
  });
  const manifest = await readFile(new URL('../package.json', here), 'utf8');
  const { version } = JSON.parse(manifest) as { version: string };
  const result = await build({
    ...agentBuildOptions(fileURLToPath(new URL(source, here)), version),
    write: false,
  });
  const output = result.outputFiles?.[0];
  if (!output) throw new Error('esbuild gave no output for the agent');
  return Buffer.from(output.contents);
}

/** How the agent is bundled: one minified CommonJS file, which Node starts faster than ESM. */
export function agentBuildOptions(entry: string, version: string): BuildOptions {
  return {
    entryPoints: [entry],
    outfile: AGENT_FILE,
    bundle: true,
    minify: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    legalComments: 'none',
    logLevel: 'error',
    define: { __QMP_AGENT_VERSION__: JSON.stringify(version) },
    plugins: [nativeBinaryBeside],
  };
}

/**
 * ffi-rs's own loader knows a dozen platforms and looks into npm's folders. In the guest there is one
 * binary at one place, so the native packages resolve to it and the loader's other branches fall away.
 */
const nativeBinaryBeside: Plugin = {
  name: 'native-binary-beside',
  setup(build) {
    build.onResolve({ filter: /^@yuuang\/ffi-rs-linux-x64-gnu$/ }, () => ({
      path: `./${FFI_FILE}`,
      external: true,
    }));
    build.onResolve({ filter: /^@yuuang\/ffi-rs-|\.node$/ }, ({ path }) => ({
      path,
      external: true,
    }));
  },
};
