/** `qmp-agent tree`: what stands on what. */
import type { Command } from 'commander';
import type { TreeNode } from '../../vm/tree.ts';
import type { CliContext } from '../context.ts';

/** Adds `tree`. */
export function registerTree(program: Command, context: CliContext): void {
  program
    .command('tree')
    .description('Show images, templates, VMs and the points at which VMs were forked as a tree.')
    .option('--json', 'print a JSON array of trees')
    .action(async () => {
      const { readTree } = await import('../../vm/tree.ts');
      const roots = await readTree(context.paths);
      if (context.json) context.printJson(roots);
      else for (const root of roots) for (const line of linesOf(root)) context.print(line);
    });
}

/** A node and all below it, a line each. Pure. */
export function linesOf(node: TreeNode): string[] {
  const lines = [describe(node)];
  for (const [index, child] of node.children.entries()) {
    const isLast = index === node.children.length - 1;
    for (const [at, line] of linesOf(child).entries()) {
      const edge = at === 0 ? (isLast ? '└── ' : '├── ') : isLast ? '    ' : '│   ';
      lines.push(`${edge}${line}`);
    }
  }
  return lines;
}

function describe({ kind, id, name, state }: TreeNode): string {
  return [name, id, state ?? kind].filter((word) => word !== undefined).join('  ');
}
