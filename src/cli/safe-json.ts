/** JSON that a terminal can be shown. */

/**
 * As `JSON.stringify`, with all that is no printable character as escapes: names of files are a guest's, and
 * JSON itself escapes only the first 32 of those that a terminal obeys. Pure.
 */
export function safeJson(value: unknown, indent?: number): string {
  // Newlines in strings are escapes by now; those that are left are the indentation's.
  return JSON.stringify(value ?? null, undefined, indent).replace(
    /[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu,
    escaped,
  );
}

function escaped(character: string): string {
  return Array.from({ length: character.length }, (_, at) => {
    return `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`;
  }).join('');
}
