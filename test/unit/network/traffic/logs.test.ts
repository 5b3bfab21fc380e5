import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { makePolicy } from '../../../../src/network/policy.ts';
import { TrafficLogs } from '../../../../src/network/traffic/logs.ts';

it('what one VM did is written, and waited for, whatever another does; of one that goes on not for ever', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'qa-logs-'));
  const policy = makePolicy({});
  const network = {
    ...{ tap: 'qa-none', mac: '02:00:00:00:00:01', generation: 1, policy: policy.rules },
    ...{ guestAddress: '10.210.0.3', gatewayAddress: '10.210.0.2' },
  };
  const logs = new TrafficLogs();
  for (const vmId of ['a', 'b']) {
    const logPath = join(dir, vmId);
    await logs.set({ vmId, network, policy, egress: {}, published: [], logPath });
  }
  const ask = (vmId: string) =>
    logs.addQuery({
      ...{ type: 'dns.query', time: new Date().toISOString(), vmId, name: 'example.org' },
      ...{ recordType: 'A', verdict: 'answered', rcode: 'NOERROR', durationMs: 1, lost: 0 },
    });
  let isFlooding = true;
  const flood = () => {
    ask('b');
    if (isFlooding) setImmediate(flood);
  };
  flood();
  ask('a');
  await logs.settleOf(['a', 'gone'], 60_000);
  expect(JSON.parse(await readFile(join(dir, 'a'), 'utf8'))).toMatchObject({ name: 'example.org' });
  await logs.settleOf(['b'], 50);
  isFlooding = false;
  await logs.settle();
  await rm(dir, { recursive: true });
});
