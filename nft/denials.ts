/** Table `inet qmp_agent`: how what is denied is logged, counted and answered. */
import {
  ACCEPT,
  DIRECTION,
  DROP,
  field,
  goto,
  hasAny,
  IIF,
  is,
  L4,
  OIF,
  type Statement,
  STATE,
} from './json.ts';
import { type DenialCause, FILTER_CAUSES } from './marks.ts';
import { countDenied, logDenied, type LogRates, over } from './parts.ts';

/** Answers (resets, ICMP errors) to one VM per second; what is over that is dropped. */
const REJECTS_PER_SECOND = 200;

/** What goes over a bandwidth is counted only: that is how a bandwidth works. */
export const LOGGED_CAUSES = FILTER_CAUSES.filter(
  (cause) => cause !== 'upload' && cause !== 'download',
);

/** Causes whose chain is reached by packets to a VM as well, where the policy is asked about a reply. */
const ALSO_INWARD: readonly DenialCause[] = ['isolated', 'rule'];

/** Of the chain of one cause. */
export function causeRules(cause: DenialCause, rates: LogRates): Statement[][] {
  if (cause === 'inward') return inwardRules(rates);
  if (cause === 'stray') return [...logDenied(cause, IIF, rates), [DROP]];
  const inward = ALSO_INWARD.includes(cause) ? [[is(OIF, '@taps'), goto('deny_inward')]] : [];
  return [...inward, ...logDenied(cause, IIF, rates), [goto('deny')]];
}

/** To a VM. Whoever has a connection that was cut is told; strangers are not. */
function inwardRules(rates: LogRates): Statement[][] {
  return [
    // The remote end's own reset would spare the guest a wait.
    [
      hasAny(STATE, 'established'),
      is(DIRECTION, 'reply'),
      is(L4, 'tcp'),
      hasAny(field('tcp', 'flags'), 'rst'),
      ACCEPT,
    ],
    ...logDenied('inward', OIF, rates),
    [countDenied(OIF)],
    [hasAny(STATE, 'established'), is(L4, 'tcp'), over('rejectq', OIF, REJECTS_PER_SECOND), DROP],
    [hasAny(STATE, 'established'), is(L4, 'tcp'), { reject: { type: 'tcp reset' } }],
    [DROP],
  ];
}

/** Fails at once and says so, rather than looking like a broken network. */
export function denyRules(): Statement[][] {
  return [
    [countDenied(IIF)],
    [is(IIF, '@silent'), DROP],
    [over('rejectq', IIF, REJECTS_PER_SECOND), DROP],
    [is(L4, 'tcp'), { reject: { type: 'tcp reset' } }],
    [{ reject: { type: 'icmpx', expr: 'admin-prohibited' } }],
  ];
}
