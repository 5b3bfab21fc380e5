/** One invocation, from arguments to exit code. */
import { CommanderError, type Command } from 'commander';
import { nearest } from '../config/nearest.ts';
import type { CliContext } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { buildProgram, commandWord } from './program.ts';
import { COMMANDS, findCommand } from './registry.ts';
import { reportError } from './report.ts';
import { readVersion } from './version.ts';

/** Runs the command that the arguments name. Never throws. */
export async function runProgram(args: readonly string[], context: CliContext): Promise<number> {
  const word = wantedCommand(args);
  const entry = findCommand(word);
  // Until the options are parsed: errors of parsing go by it as well.
  const end = args.indexOf('--');
  context.json = (end === -1 ? args : args.slice(0, end)).includes('--json');
  if (entry?.passesExitCode === true) {
    context.usageCode = EXIT.ownFailure;
    context.failureCode = EXIT.ownFailure;
  }
  let program: Command | undefined;
  try {
    program = await buildProgram(context, entry?.needsAll === true ? 'all' : entry);
    if (word === undefined) program.action((_flags, self: Command) => bare(self, context));
    else if (entry === undefined && word !== 'help') throw unknownCommand(word);
    program.hook('preAction', async (_program, command) => {
      context.json = command.opts<{ json?: boolean }>().json === true;
      if (!standsAlone(command)) await context.prepare(command);
    });
    await program.parseAsync(args, { from: 'user' });
    return context.exitCode;
  } catch (error) {
    return reportError(error, context, usageOf(program, args));
  } finally {
    await context.close().catch(() => undefined);
  }
}

/** `qmp-agent help run` needs the whole of `run`. */
function wantedCommand(args: readonly string[]): string | undefined {
  const word = commandWord(args);
  if (word !== 'help') return word;
  return commandWord(args.slice(args.indexOf('help') + 1)) ?? 'help';
}

/** Commands that have to work with a broken configuration. */
function standsAlone(command: Command): boolean {
  if (command.parent === null) return true;
  const name =
    command.parent.parent === null ? command.name() : `${command.parent.name()} ${command.name()}`;
  return ['version', 'completion', '__complete', 'doctor', 'config path'].includes(name);
}

/** No command: the version or the help. */
function bare(program: Command, context: CliContext): void {
  if (program.opts<{ version?: boolean }>().version === true) {
    context.print(readVersion());
    return;
  }
  context.stderr.write(program.helpInformation());
  context.exitCode = EXIT.usage;
}

function unknownCommand(word: string): CommanderError {
  const names = COMMANDS.filter((entry) => entry.hidden !== true).flatMap((entry) =>
    entry.alias === undefined ? [entry.name] : [entry.name, entry.alias],
  );
  const near = nearest(word, names);
  const guess = near === undefined ? '' : `\n(Did you mean ${near}?)`;
  const text = `error: unknown command '${word}'${guess}`;
  return new CommanderError(EXIT.usage, 'commander.unknownCommand', text);
}

/** The usage line of the command that the arguments name, as deep as they go. */
function usageOf(program: Command | undefined, args: readonly string[]): string | undefined {
  let command = program;
  let path = '';
  for (const word of args) {
    const child = command?.commands.find(
      (candidate) => candidate.name() === word || candidate.aliases().includes(word),
    );
    if (child === undefined) continue;
    command = child;
    path = `${path} ${child.name()}`;
    if (child.commands.length === 0) break;
  }
  return command === undefined ? undefined : `usage: qmp-agent${path} ${command.usage()}`;
}
