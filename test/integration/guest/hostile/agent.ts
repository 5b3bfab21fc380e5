/** The hostile agent, built as the real one is. */
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import {
  AGENT_FILE,
  agentBuildOptions,
  agentFiles,
  type AgentFiles,
} from '../../../../guest-agent/bundle.ts';

/** The files of the real agent, with the hostile one's script in place of its own. */
export async function hostileFiles(): Promise<AgentFiles> {
  const entry = fileURLToPath(new URL('program.ts', import.meta.url));
  const result = await build({ ...agentBuildOptions(entry, '6.6.6'), write: false });
  const script = Buffer.from(result.outputFiles[0]!.contents);
  const { files } = await agentFiles();
  const hash = createHash('sha256').update(script).digest('hex');
  const own = files.map((file) => (file.name === AGENT_FILE ? { ...file, data: script } : file));
  return { hash, files: own };
}
