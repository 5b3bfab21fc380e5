import { describe, expect, it } from 'vitest';
import { checkOptionShapes, type OptionShapes } from '../../../src/config/check-options.ts';
import { ConfigError } from '../../../src/errors.ts';
import { checkOptions } from '../../../src/vm/vm-config.ts';

interface Options {
  name?: string;
  ports?: readonly string[];
  count?: number;
  warm?: boolean;
  lan?: object;
  prepare?: () => void;
  signal?: AbortSignal;
}
const SHAPES: OptionShapes<Options> = {
  ...{ name: 'text', ports: 'texts', count: 'number', warm: 'flag', lan: 'object' },
  ...{ prepare: 'function', signal: 'signal' },
};
const check = (o: object) => checkOptionShapes(o, SHAPES, { section: 'box', noun: 'option' });

describe('options in code', () => {
  it('may be left out, or be what they should be', () => {
    const { signal } = new AbortController();
    check({});
    check({ name: undefined, signal: undefined });
    check({ name: '', ports: ['80'], count: NaN, warm: false, lan: {}, prepare: check, signal });
  });

  it.each([
    ['name', 5, '5', 'a text'],
    ['name', null, 'null', 'a text'],
    ['ports', '8080:80', "'8080:80'", 'an array of texts'],
    ['ports', ['80', 80], "[ '80', 80 ]", 'an array of texts'],
    ['count', '3', "'3'", 'a number'],
    ['warm', 'yes', "'yes'", 'true or false'],
    ['lan', [], '[]', 'an object'],
    ['lan', null, 'null', 'an object'],
    ['prepare', {}, '{}', 'a function'],
    ['signal', 'SIGINT', "'SIGINT'", 'an AbortSignal'],
    ['name', { toString: null }, '{ toString: null }', 'a text'],
  ])('are named where %s is another thing: %o', (field, value, shown, what) => {
    expect(() => check({ [field]: value })).toThrow(
      expect.objectContaining({
        message: `box.${field} is ${shown}`,
        ...{ field: `box.${field}`, value, hint: `Give ${what}.` },
      }),
    );
  });

  it('are named where they are misspelled, those of every object too', () => {
    expect(() => check({ nmae: 'x' })).toThrow(
      expect.objectContaining({ field: 'box.nmae', hint: 'Did you mean name?' }),
    );
    expect(() => check({ constructor: 'x' })).toThrow(ConfigError);
  });

  it('of a VM are looked at before anything else is', () => {
    for (const o of [{ network: {} }, { publish: '80:80' }, { kernelArgs: 'quiet' }, { image: 1 }])
      expect(() => checkOptions(o as never)).toThrow(ConfigError);
  });
});
