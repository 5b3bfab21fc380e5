/**
 * Exit code 0 when node_modules holds exactly the versions that package-lock.json names. npm records
 * what it installed in node_modules/.package-lock.json; comparing versions, not times, keeps a fresh
 * checkout of an unchanged lock file from costing an `npm ci`.
 */
const { readFileSync } = require('node:fs');

const packagesOf = (path) => {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages ?? {};
  } catch {
    return undefined;
  }
};
const wanted = packagesOf('package-lock.json');
const installed = packagesOf('node_modules/.package-lock.json');
const fits =
  wanted !== undefined &&
  installed !== undefined &&
  Object.entries(wanted).every(
    ([path, entry]) =>
      path === '' || entry.optional === true || installed[path]?.version === entry.version,
  );
process.exit(fits ? 0 : 1);
