/** Which event is worth a line at which level, and what the line says. Pure. */
import type { EventType, SystemEvent } from '../events.ts';

/** pino's levels, weakest first. */
export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
/** Level of one line. */
export type Level = (typeof LEVELS)[number];
/** Level from which lines are written; `silent` writes none. */
export type Threshold = Level | 'silent';

const LEVEL_OF: Readonly<Record<EventType, Level>> = {
  'vm.created': 'info',
  'vm.started': 'debug',
  'vm.ready': 'info',
  'vm.state': 'debug',
  'vm.stopped': 'info',
  'vm.suspended': 'info',
  'vm.loaded': 'info',
  'vm.removed': 'info',
  'image.build.started': 'info',
  'image.build.step': 'debug',
  'image.build.finished': 'info',
  'image.build.failed': 'info', // whoever asked for it gets the error itself
  'image.imported': 'info',
  'image.removed': 'info',
  'exec.started': 'info',
  'exec.finished': 'info',
  'template.created': 'info',
  'template.removed': 'info',
  'vm.cloned': 'info',
  'vm.forked': 'info',
  'snapshot.created': 'info',
  'snapshot.restored': 'info',
  'snapshot.deleted': 'info',
  'pool.created': 'info',
  'pool.vm-ready': 'debug',
  'pool.acquired': 'debug',
  'pool.released': 'debug',
  'pool.vm-removed': 'debug',
  'pool.source-failed': 'warn',
  'pool.source-recovered': 'info',
  'pool.draining': 'info',
  'pool.closed': 'info',
  'dns.query': 'debug',
  'network.captured': 'info',
  'guest.connected': 'debug',
  'guest.disconnected': 'debug',
  'fault.guest-protocol': 'error',
  'fault.guest-panic': 'error',
  'fault.qemu-died': 'error',
  'host.warning': 'warn',
  'gc.reaped': 'info',
  'trace.argv': 'trace',
  'trace.qmp': 'trace',
  'trace.agent': 'trace',
};

/** Level of an event. Later releases may announce events that this table lacks: `info`. */
export function levelOf(type: EventType): Level {
  return (LEVEL_OF as Readonly<Partial<Record<string, Level>>>)[type] ?? 'info';
}

/**
 * Whether an event is written. Transcripts are announced only where `--trace` asked for them, so
 * they pass every threshold but `silent`.
 */
export function passes(type: EventType, threshold: Threshold): boolean {
  if (threshold === 'silent') return false;
  if (type.startsWith('trace.')) return true;
  return LEVELS.indexOf(levelOf(type)) >= LEVELS.indexOf(threshold);
}

/** The line's text; everything else about the event stands beside it as fields. */
export function messageOf(event: SystemEvent): string {
  // eslint-disable-next-line @typescript-eslint/switch-exhaustiveness-check -- most are their own name
  switch (event.type) {
    case 'host.warning':
      return event.hint === undefined ? event.message : `${event.message} (${event.hint})`;
    case 'fault.guest-protocol':
      return `guest agent broke the protocol: ${event.message}`;
    case 'fault.guest-panic':
      return `guest kernel panic: ${event.panic}`;
    case 'fault.qemu-died':
      return `QEMU died: ${event.stderr.trim().split('\n').at(-1) ?? ''}`;
    case 'image.build.step':
      return `image ${event.image}: ${event.step} (${event.index + 1}/${event.steps})`;
    case 'image.build.failed':
      return `image ${event.image}: ${event.step} failed: ${event.error}`;
    case 'pool.source-failed':
      return `pool ${event.pool} cannot make VMs (${event.failures} in a row, next attempt in ${event.retryMs} ms): ${event.error}`;
    default:
      return event.type;
  }
}
