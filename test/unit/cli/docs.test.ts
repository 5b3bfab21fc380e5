import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../../src/cli/registry.ts';
import { DEFAULT_CONFIG, FIELDS } from '../../../src/config/schema.ts';

describe('documentation', () => {
  it('has every command', async () => {
    const text = await readFile('docs/cli.md', 'utf8');
    const table = text
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .join('\n');
    for (const { name, alias, hidden } of COMMANDS) {
      if (hidden === true) continue;
      expect(table).toMatch(new RegExp(`\`${name}\\b`));
      if (alias !== undefined) expect(table).toMatch(new RegExp(`\`${alias}\``));
    }
  });

  it('has every setting with its default', async () => {
    const text = await readFile('docs/configuration.md', 'utf8');
    const rows = text.split('\n').filter((line) => line.startsWith('| `'));
    for (const { path } of FIELDS) {
      const [section, key] = path;
      const row = rows.find((line) => line.startsWith(`| \`${path.join('.')}\` `));
      expect(row, path.join('.')).toBeDefined();
      const value = (
        DEFAULT_CONFIG[section as keyof typeof DEFAULT_CONFIG] as Record<string, unknown>
      )[key];
      if (typeof value === 'string' || typeof value === 'number') {
        expect(row).toContain(`| \`${value}\` `);
      }
    }
    expect(rows).toHaveLength(FIELDS.length);
  });
});
