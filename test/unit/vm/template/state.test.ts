import { describe, expect, it } from 'vitest';
import { withConfiguration } from '../../../../src/vm/template/state.ts';

const head = Buffer.from('QEVM\0\0\0\x03', 'latin1');

describe('withConfiguration', () => {
  it('puts the machine’s name behind the head, and an empty description at the end', () => {
    const stream = withConfiguration(Buffer.concat([head, Buffer.from([4, 1, 2])]), 'pc-q35-7.2');
    expect(stream.toString('latin1')).toBe(
      'QEVM\0\0\0\x03\x07\0\0\0\x0apc-q35-7.2\x04\x01\x02\x06\0\0\0\0',
    );
  });

  it('leaves a stream alone that has it', () => {
    const stream = Buffer.concat([head, Buffer.from([7, 0, 0, 0, 1, 0x78])]);
    expect(withConfiguration(stream, 'microvm')).toEqual(stream);
  });

  it('refuses what is no stream', () => {
    expect(() => withConfiguration(Buffer.from('nothing'), 'q35')).toThrow(/no state of devices/);
  });
});
