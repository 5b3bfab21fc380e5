/** `qmp-agent completion`. */
import { Argument, type Command } from 'commander';
import { completionScript, SHELLS, type Shell } from '../completion-script.ts';
import type { CliContext } from '../context.ts';

const EPILOG = `
bash: qmp-agent completion bash > /etc/bash_completion.d/qmp-agent
      or in ~/.bashrc: source <(qmp-agent completion bash)
zsh:  in ~/.zshrc, after compinit: source <(qmp-agent completion zsh)`;

/** Adds `completion`; it needs the whole tree, so the registry has all other commands loaded too. */
export function registerCompletion(program: Command, context: CliContext): void {
  program
    .command('completion')
    .description('Print a completion script.')
    .addArgument(new Argument('<shell>', 'bash or zsh').choices(SHELLS))
    .addHelpText('after', EPILOG)
    .action((shell: Shell) => {
      context.stdout.write(completionScript(program, shell));
    });
}
