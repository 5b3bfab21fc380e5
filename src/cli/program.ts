/** The tree of commands, as much of it as one invocation needs. */
import { Command } from 'commander';
import { addGlobalOptions } from './config-flags.ts';
import type { CliContext } from './context.ts';
import { COMMANDS, findCommand, type CommandEntry } from './registry.ts';

const EPILOG = `
Examples:
  qmp-agent run -- python3 -c 'print("hello from a VM")'
  qmp-agent create --name box && qmp-agent exec box -- npm test
  qmp-agent doctor

Exit codes: 0, 1 failure, 2 usage; run and exec pass the command's own code on, and use
124 timed out, 125 qmp-agent failed, 126 cannot be invoked, 127 not found, 128+n signal n.`;

/** Global options that take a value: skipped in the search for the command's name. */
const GLOBAL_WITH_VALUE = new Set([
  '--config',
  '--log-level',
  '--log-format',
  '--log-file',
  '--trace',
]);

/** The command's name among the arguments: the first word that is no global option. Pure. */
export function commandWord(args: readonly string[]): string | undefined {
  for (let i = 0; i < args.length; i += 1) {
    const word = args[i] ?? '';
    if (GLOBAL_WITH_VALUE.has(word)) i += 1;
    else if (!word.startsWith('-')) return word;
  }
  return undefined;
}

/**
 * Builds the program.
 *
 * @param which The command to load whole; `all` for completion scripts and documentation. All
 *   others are there by name only, for help and for suggestions.
 */
export async function buildProgram(
  context: CliContext,
  which: CommandEntry | 'all' | undefined,
): Promise<Command> {
  const program = new Command('qmp-agent')
    .description('Run coding agents and untrusted commands in throw-away virtual machines.')
    .usage('[global options] COMMAND [options]')
    .option('-V, --version', 'show the version')
    .enablePositionalOptions()
    .helpCommand('help [command]', 'show help for a command')
    .addHelpText('after', EPILOG)
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  addGlobalOptions(program);
  for (const entry of COMMANDS) {
    if (which === 'all' || entry === which) await entry.register(program, context);
    else addStub(program, entry);
  }
  for (const command of program.commands) {
    const entry = findCommand(command.name());
    if (entry !== undefined) command.summary(entry.summary);
    settle(command);
  }
  return program;
}

function addStub(program: Command, entry: CommandEntry): void {
  const stub = program.command(entry.name, { hidden: entry.hidden === true });
  stub.description(entry.summary);
  if (entry.alias !== undefined) stub.alias(entry.alias);
}

/** What all commands have in common; subcommands too. */
function settle(command: Command): void {
  addGlobalOptions(command);
  command.exitOverride().configureOutput({ outputError: () => undefined });
  for (const child of command.commands) settle(child);
}
