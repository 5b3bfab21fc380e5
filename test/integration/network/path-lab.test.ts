/** Hosts in namespaces, with rules and without, through which packets are measured. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestHost } from './test-host.ts';

let host: TestHost;
beforeAll(async () => {
  host = await TestHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

it('packets, round trips, transfers and connections get through with rules and without; then all is gone', async () => {
  const figures = (await host.module(`
    for (const vms of [0, 3]) {
      const lab = await network.PathLab.open({ vms });
      try {
        for (const figure of ['packet', 'rtt', 'tcp', 'connections']) say(await lab.take(figure));
      } finally {
        await lab[Symbol.asyncDispose]();
      }
    }`)) as number[];
  expect(figures).toHaveLength(8);
  for (const figure of figures) expect(figure).toBeGreaterThan(0);
  expect(await host.run('ip', 'netns')).not.toContain('qmp-agent-bench');
});
