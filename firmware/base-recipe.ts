import { parseRecipe, type Recipe } from './recipe.ts';

/** What every image has besides Debian's essential packages: an interactive system needs it. */
export const MINIMAL_PACKAGES: readonly string[] = [
  'bash',
  'ca-certificates',
  'e2fsprogs',
  'iproute2',
  'kmod',
  'less',
  'procps',
  'util-linux',
];

/** The default image: what coding agents expect to find. */
export const BASE_RECIPE: Recipe = parseRecipe({
  name: 'base',
  packages: [
    'build-essential',
    'curl',
    'git',
    'jq',
    'nodejs',
    'npm',
    'openssh-client',
    'python3',
    'python3-pip',
    'python3-venv',
    'ripgrep',
  ],
});
