/** Deadlines of tests are multiplied by this: in the lab every instruction is emulated. */
export const SCALE = Number(process.env['QMP_AGENT_TEST_TIMEOUT_SCALE'] ?? 1);
