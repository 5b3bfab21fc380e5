/** What a socket of the first VM of a test network gets, one case a line. */
import { expect, test } from 'vitest';
import type { TestNetwork } from './network.ts';
import { deniedCounts, expectOutcome, type Outcome } from './outcome.ts';

export type SocketCase = [
  name: string,
  what: string,
  to: string,
  port: number,
  result: string,
  Outcome,
];

/** A test for each. @param netOf called when they run */
export function socketCases(netOf: () => TestNetwork, cases: SocketCase[]): void {
  test.each(cases)('%s (%s %s %i): %s', async (...parts) => {
    // The test's context comes last.
    await checkSocket(netOf(), parts.slice(0, 6) as unknown as SocketCase);
  });
}

async function checkSocket(
  net: TestNetwork,
  [, what, to, port, result, outcome]: SocketCase,
): Promise<void> {
  await net.logs();
  const before = await deniedCounts(net);
  const command = what === 'tcp' ? 'tcp_connect' : what;
  const answer = await net.vms[0]!.peer.do(command, {
    to,
    port,
    // Only a silence has to be waited for.
    timeoutS: result === 'timeout' ? 0.4 : 5,
  });
  expect(answer).toBe(result);
  await expectOutcome(net, outcome, before);
}
