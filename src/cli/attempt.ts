/** One of several things that a command is about: what becomes of it is told, and the others go on. */
import type { CliContext } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { describeError, reportError } from './report.ts';

/** What became of it, as `--json` prints it. */
export type Outcome = Readonly<Record<string, unknown>> & { readonly ok: boolean };

/**
 * Does something to one of them: prints its name where it worked, as docker does, and reports the error
 * where it did not.
 * @param noun what it is, and its member in the outcome: `vm`, `image`, `template`
 * @param isFine whether an error is as good as success. Default: none is
 */
export async function attempt(
  context: CliContext,
  noun: string,
  name: string,
  action: () => Promise<unknown>,
  isFine: (error: unknown) => boolean = () => false,
): Promise<Outcome> {
  try {
    await action();
  } catch (error) {
    if (isFine(error)) return { [noun]: name, ok: true };
    if (!context.json) context.exitCode = reportError(error, context);
    else context.exitCode = EXIT.failure;
    return { [noun]: name, ok: false, error: describeError(error) };
  }
  if (!context.json) context.print(name);
  return { [noun]: name, ok: true };
}
