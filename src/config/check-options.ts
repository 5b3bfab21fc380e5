/** Checks of options that callers give in code; each error names the field, the value and the remedy. Pure. */
import { inspect } from 'node:util';
import { ConfigError } from '../errors.ts';
import { nearest } from './nearest.ts';

const isText = (value: unknown): boolean => typeof value === 'string';

/** Shapes of options: TypeScript's types, for callers that have none. */
const SHAPES = {
  text: { fits: isText, what: 'a text' },
  texts: {
    fits: (value: unknown) => Array.isArray(value) && value.every(isText),
    what: 'an array of texts',
  },
  number: { fits: (value: unknown) => typeof value === 'number', what: 'a number' },
  flag: { fits: (value: unknown) => typeof value === 'boolean', what: 'true or false' },
  object: {
    fits: (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value),
    what: 'an object',
  },
  function: { fits: (value: unknown) => typeof value === 'function', what: 'a function' },
  signal: { fits: (value: unknown) => value instanceof AbortSignal, what: 'an AbortSignal' },
} as const;

/** All options of a call with their shapes. */
export type OptionShapes<Options> = Readonly<Record<keyof Options, keyof typeof SHAPES>>;

/** Of a value that is not what it should be. */
const SHOWN_CHARS = 100;

/**
 * A misspelled option that is silently a default is worse than an error; and one of another shape fails somewhere
 * where nobody knows what it was.
 * @param known all options there are
 * @param noun what an option is called in the error, e.g. `pool option`
 * @throws ConfigError
 */
export function checkOptionShapes(
  o: object,
  known: OptionShapes<Record<string, unknown>>,
  { section, noun }: { section: string; noun: string },
): void {
  for (const [name, value] of Object.entries(o) as [string, unknown][]) {
    const shape = Object.hasOwn(known, name) ? known[name] : undefined;
    if (shape === undefined) throw unknownOption(name, { value, known, section, noun });
    const { fits, what } = SHAPES[shape];
    if (value === undefined || fits(value)) continue;
    const field = `${section}.${name}`;
    const shown = inspect(value, { depth: 0, breakLength: Infinity }).slice(0, SHOWN_CHARS);
    throw new ConfigError(`${field} is ${shown}`, { field, value, hint: `Give ${what}.` });
  }
}

function unknownOption(
  unknown: string,
  o: { value: unknown; known: object; section: string; noun: string },
): ConfigError {
  const names = Object.keys(o.known);
  const meant = nearest(unknown, names);
  return new ConfigError(`there is no ${o.noun} ${JSON.stringify(unknown)}`, {
    field: `${o.section}.${unknown}`,
    value: o.value,
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
