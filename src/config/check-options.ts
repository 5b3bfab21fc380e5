/** Checks of options that callers give in code; each error names the field, the value and the remedy. Pure. */
import { ConfigError } from '../errors.ts';
import { nearest } from './nearest.ts';

/**
 * A misspelled option that is silently a default is worse than an error.
 * @param known names of all options there are
 * @param noun what an option is called in the error, e.g. `pool option`
 * @throws ConfigError
 */
export function checkOptionNames(
  o: object,
  known: Readonly<Record<string, true>>,
  { section, noun }: { section: string; noun: string },
): void {
  const names = Object.keys(known);
  const unknown = Object.keys(o).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  const meant = nearest(unknown, names);
  throw new ConfigError(`there is no ${noun} ${JSON.stringify(unknown)}`, {
    field: `${section}.${unknown}`,
    value: (o as Record<string, unknown>)[unknown],
    hint: meant === undefined ? `There are ${names.join(', ')}.` : `Did you mean ${meant}?`,
  });
}

/** The value, where it is a whole number within bounds. @throws ConfigError */
export function wholeNumber(field: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new ConfigError(`${field} is ${String(value)}`, {
    field,
    value,
    hint: `Give a whole number from ${min} to ${max}.`,
  });
}
