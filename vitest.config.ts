import { defineConfig } from 'vitest/config';

/**
 * All deadlines of tests are multiplied by this. The lab sets it: every instruction is emulated
 * there, the test runner's too.
 */
const scale = Number(process.env['QMP_AGENT_TEST_TIMEOUT_SCALE'] ?? 1);

/**
 * One project per level. Integration tests start real QEMU processes; e2e tests boot the `base`
 * image. Both run one file at a time: on two cores, VMs under software emulation that compete for
 * the processor only teach us about scheduling.
 */
const slow = {
  fileParallelism: false,
  testTimeout: 120_000 * scale,
  hookTimeout: 240_000 * scale,
};

/**
 * A guest under emulation shares two cores with everything else, and may not run for seconds. What fails
 * is tried once more; if it passes then, `scripts/test` names it as flaky, and a few of those fail the run.
 */
const withGuests = { ...slow, retry: 1 };

export default defineConfig({
  test: {
    pool: 'forks',
    // Tests do not depend on whether the host that they run on is set up for taps.
    env: { QMP_AGENT_NETWORK_DEFAULT: 'isolated' },
    coverage: {
      provider: 'v8',
      include: ['{qmp,nft,guest-agent,firmware,src}/**/*.ts'],
    },
    projects: [
      { extends: true, test: { name: 'style', include: ['test/style/**/*.test.ts'], ...slow } },
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        extends: true,
        test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...withGuests },
      },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...withGuests } },
      { extends: true, test: { name: 'lab', include: ['test/lab/**/*.test.ts'], ...withGuests } },
    ],
  },
});
