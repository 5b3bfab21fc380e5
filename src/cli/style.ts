/** Colours, where there is somebody to see them. */

/** Text with terminal attributes, or as it is. */
export interface Style {
  readonly enabled: boolean;
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly red: (text: string) => string;
  readonly green: (text: string) => string;
  readonly yellow: (text: string) => string;
}

/**
 * Whether to colour: `NO_COLOR` (no-color.org: any value but the empty one) and `TERM=dumb` say no, `FORCE_COLOR`
 * says yes, else a terminal does.
 */
export function wantsColor(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  if (env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '') return false;
  const force = env['FORCE_COLOR'];
  if (force !== undefined) return force !== '0' && force !== 'false';
  return stream.isTTY === true && env['TERM'] !== 'dumb';
}

/** A style that colours or does not. SGR codes of ECMA-48. */
export function createStyle(enabled: boolean): Style {
  const sgr =
    (on: number, off: number) =>
    (text: string): string =>
      enabled ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    enabled,
    bold: sgr(1, 22),
    dim: sgr(2, 22),
    red: sgr(31, 39),
    green: sgr(32, 39),
    yellow: sgr(33, 39),
  };
}
