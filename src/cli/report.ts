/** Every error that reaches the user goes through here. */
import { CommanderError } from 'commander';
import { QmpAgentError } from '../errors.ts';
import type { CliContext } from './context.ts';
import { EXIT, signalExitCode } from './exit-codes.ts';
import { safeJson } from './safe-json.ts';

/** Lines of QEMU's stderr or the guest's console that are shown with an error. */
const SHOWN_LINES = 10;

/** An error as `--json` prints it. */
export interface ReportedError {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
  /** Whatever else the error says about itself: `field`, `vmId`, `timeoutMs`, …. */
  readonly [key: string]: unknown;
}

/**
 * Reports an error on stderr.
 *
 * @param usage The command's usage line, shown where the command line is wrong.
 * @returns the exit code.
 */
export function reportError(error: unknown, context: CliContext, usage?: string): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT.ok;
    // The help has been printed: `qmp-agent image` without a subcommand.
    if (error.code === 'commander.help') return context.usageCode;
  }
  const { received, signal } = context.interrupts;
  // Somebody asked us to end: no news to them, and the abort's own text would only confuse.
  if (received !== undefined && signal.aborted && isAbort(error)) return signalExitCode(received);
  const told = describeError(error, usage);
  if (context.json) context.stderr.write(`${safeJson({ error: told })}\n`);
  else context.stderr.write(formatError(error, told, context));
  return error instanceof CommanderError ? context.usageCode : context.failureCode;
}

/** What there is to say about an error. Secrets are not in it, as they are in no error. */
export function describeError(error: unknown, usage?: string): ReportedError {
  if (error instanceof CommanderError) return describeUsage(error, usage);
  if (error instanceof QmpAgentError) {
    const { name: _name, stack: _stack, cause, ...fields } = error;
    const why = cause instanceof Error ? { cause: cause.message } : {};
    return { ...fields, ...why, code: error.code, message: error.message, hint: error.hint };
  }
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return {
    code: typeof code === 'string' ? code : 'ERR_INTERNAL',
    message,
    hint:
      typeof code === 'string'
        ? 'run again with --log-level debug for where it happened'
        : 'this is a defect of qmp-agent: run again with --log-level debug and report it',
  };
}

function describeUsage(error: CommanderError, usage = 'see qmp-agent --help'): ReportedError {
  const text = error.message.replace(/^error: /, '');
  const guess = /\n\(Did you mean (.+)\?\)$/.exec(text);
  return {
    code: 'ERR_USAGE',
    message: guess === null ? text : text.slice(0, guess.index),
    hint: guess === null ? usage : `did you mean ${guess[1]}?`,
  };
}

function formatError(error: unknown, told: ReportedError, context: CliContext): string {
  const { red, dim } = context.errorStyle;
  const lines = [`${red('qmp-agent:')} ${told.message}`];
  for (const [title, key] of [
    ["QEMU's stderr", 'stderr'],
    ["the guest's console", 'console'],
  ] as const) {
    const text = told[key];
    if (typeof text === 'string' && text.trim() !== '') lines.push(...quote(title, text).map(dim));
  }
  if (typeof told['logPath'] === 'string') lines.push(dim(`  log: ${told['logPath']}`));
  if (told.hint !== undefined) lines.push(`hint: ${told.hint}`);
  if (context.debug && error instanceof Error) lines.push(dim(stackOf(error)));
  return `${lines.join('\n')}\n`;
}

function quote(title: string, text: string): string[] {
  // A guest's console is hostile: control characters would reach the user's terminal.
  const clean = text.replace(/[^\P{Cc}\n\t]/gu, '');
  const lines = clean.trimEnd().split('\n');
  return [`  ${title}:`, ...lines.slice(-SHOWN_LINES).map((line) => `    ${line}`)];
}

function stackOf(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || isAbort(error.cause));
}
