/** Import directions of docs/architecture.md, checked. */
const only = (name, from, allowed) => ({
  name,
  severity: 'error',
  from: { path: from },
  to: { pathNot: allowed, dependencyTypesNot: ['core'] },
});
const npm = '(^|/)node_modules/';
const single = (pkg, owner) => ({
  name: `one-importer-${pkg}`,
  comment: `${pkg} has one importing module`,
  severity: 'error',
  from: { pathNot: owner },
  to: { path: `${npm}${pkg}/` },
});
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('qmp-knows-no-vms', '^qmp/', ['^qmp/', '^src/errors\\.ts$']),
    only('guest-agent-stands-alone', '^guest-agent/', ['^guest-agent/', `${npm}(ffi-rs|esbuild)/`]),
    only('firmware-stands-alone', '^firmware/', [
      '^firmware/',
      '^src/errors\\.ts$',
      `${npm}execa/`,
    ]),
    only('nft-stands-alone', '^nft/', ['^nft/', '^src/errors\\.ts$']),
    {
      name: 'errors-are-the-root',
      severity: 'error',
      from: { path: '^src/errors\\.ts$' },
      to: { dependencyTypesNot: ['core'] },
    },
    {
      name: 'below-vm',
      comment: 'storage, image, guest and config never look up',
      severity: 'error',
      from: { path: '^src/(config|image|storage|guest|log)/' },
      to: { path: '^src/(vm|cli|bench|server|pool|executor|monitor)/' },
    },
    {
      name: 'network-below-vm',
      comment: 'the network knows addresses, names and rules, and no VMs',
      severity: 'error',
      from: { path: '^src/network/' },
      to: {
        path: '^src/(vm|cli|bench|server|pool|executor|monitor|storage|image|guest|log|doctor)/',
      },
    },
    {
      name: 'vm-below-front',
      severity: 'error',
      from: { path: '^src/vm/' },
      to: { path: '^src/(cli|bench|server|pool|executor|monitor)/' },
    },
    {
      name: 'config-is-a-leaf',
      severity: 'error',
      from: { path: '^src/config/' },
      to: { path: '^src/(image|storage|guest)/' },
    },
    {
      name: 'pool-below-front',
      severity: 'error',
      from: { path: '^src/pool/' },
      to: { path: '^src/(cli|bench|server|image|storage|guest|log|doctor)/' },
    },
    single('ffi-rs', '^guest-agent/libc\\.ts$'),
    single('zod', '^src/config/schema\\.ts$'),
    single('pino', '^src/log/'),
    single('dns-packet', '^src/network/resolver/packet\\.ts$'),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
};
