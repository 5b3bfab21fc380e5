/** Programs besides QEMU. */
import { findProgram } from './probe.ts';
import { fail, ok, warn, type Check } from './types.ts';

/** A program, what it is for, and where it comes from. */
interface Tool {
  readonly program: string;
  readonly purpose: string;
  readonly debianPackage: string;
  /** Whether the main job fails without it. */
  readonly need: 'always' | 'build' | 'network';
}

const TOOLS: readonly Tool[] = [
  {
    program: 'setpriv',
    purpose: 'VMs die with their owner',
    debianPackage: 'util-linux',
    need: 'always',
  },
  { program: 'mmdebstrap', purpose: 'image build', debianPackage: 'mmdebstrap', need: 'build' },
  {
    program: 'mke2fs',
    purpose: 'image build and import',
    debianPackage: 'e2fsprogs',
    need: 'build',
  },
  {
    program: 'nft',
    purpose: "rules for VMs' networks",
    debianPackage: 'nftables',
    need: 'network',
  },
  { program: 'ip', purpose: "VMs' taps", debianPackage: 'iproute2', need: 'network' },
  {
    program: 'tcpdump',
    purpose: "records and captures of VMs' traffic",
    debianPackage: 'tcpdump',
    need: 'network',
  },
];

/** Paths by program; undefined where it is missing. */
export type ToolFacts = ReadonlyMap<string, string | undefined>;

/** Looks at the host. */
export async function probeTools(env: NodeJS.ProcessEnv): Promise<ToolFacts> {
  return new Map(
    await Promise.all(
      TOOLS.map(async ({ program }) => [program, await findProgram(program, env)] as const),
    ),
  );
}

/** Judges. Programs for builds are no failure where the image is there already. */
export function judgeTools(facts: ToolFacts, imageBuilt: boolean): Check[] {
  return TOOLS.map(({ program, purpose, debianPackage, need }) => {
    const id = `tool.${program}`;
    const path = facts.get(program);
    if (path !== undefined) return ok(id, `${program} is ${path}`);
    const fatal = need === 'always' || (need === 'build' && !imageBuilt);
    const found = `${program} is missing (for: ${purpose})`;
    return (fatal ? fail : warn)(id, found, `apt install ${debianPackage}`);
  });
}
