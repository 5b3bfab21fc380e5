import { defineConfig } from 'vitest/config';

/**
 * One project per level. Integration tests start real QEMU processes; e2e tests boot the `base`
 * image. Both run one file at a time: on two cores, VMs under software emulation that compete for
 * the processor only teach us about scheduling.
 */
const slow = { fileParallelism: false, testTimeout: 120_000, hookTimeout: 240_000 };

export default defineConfig({
  test: {
    pool: 'forks',
    coverage: { provider: 'v8', include: ['qmp/**', 'nft/**', 'guest-agent/**', 'firmware/**', 'src/**'] },
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      { extends: true, test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...slow } },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...slow } },
      { extends: true, test: { name: 'lab', include: ['test/lab/**/*.test.ts'], ...slow } },
    ],
  },
});
