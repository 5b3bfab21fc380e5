/** QMP commands by hand. */
import type { QmpClient, WaitOptions } from '../../qmp/index.ts';
import { nearest } from '../config/nearest.ts';
import { QmpCommandError } from '../errors.ts';
import type { QmpInput } from './qmp-input.ts';

/**
 * Sends a command. Where QEMU knows none of that name, the error's hint has the nearest.
 *
 * @throws QmpError, TimeoutError, `signal.reason`.
 */
export async function callByHand(
  client: QmpClient,
  { command, args, oob }: QmpInput,
  wait: WaitOptions,
): Promise<unknown> {
  try {
    return await client.executeRaw(command, args, { ...wait, oob });
  } catch (error) {
    const isUnknown = error instanceof QmpCommandError && error.errorClass === 'CommandNotFound';
    throw isUnknown ? await withSuggestion(client, error, wait) : error;
  }
}

async function withSuggestion(
  client: QmpClient,
  error: QmpCommandError,
  wait: WaitOptions,
): Promise<QmpCommandError> {
  const commands = await client.execute('query-commands', {}, wait);
  const near = nearest(
    error.command,
    commands.map(({ name }) => name),
  );
  if (near === undefined) return error;
  const { command, errorClass, desc } = error;
  const hint = `${error.hint ?? ''} Did you mean ${near}?`;
  return new QmpCommandError(command, { class: errorClass, desc }, { hint });
}
