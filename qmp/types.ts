import type { QmpCommands } from './generated/commands.ts';
import type { QmpEvents } from './generated/events.ts';
import type { WaitOptions } from './deadline.ts';

/** Every command of the QEMU versions that the types know. */
export type QmpCommandName = keyof QmpCommands;

/** What a command takes. */
export type QmpArguments<C extends QmpCommandName> = QmpCommands[C]['arguments'];

/** What a command gives. */
export type QmpReturn<C extends QmpCommandName> = QmpCommands[C]['return'];

/** Every event of the QEMU versions that the types know. */
export type QmpEventName = keyof QmpEvents;

/** What an event carries. */
export type QmpEventData<E extends QmpEventName> = QmpEvents[E];

/** One event, as it comes over the wire. */
export type QmpEventOf<E extends QmpEventName> = {
  [N in E]: {
    readonly event: N;
    readonly data: QmpEvents[N];
    /** Host clock of QEMU; both are -1 where the host could not tell the time. */
    readonly timestamp: { readonly seconds: number; readonly microseconds: number };
  };
}[E];

/** Any event. A QEMU newer than the types may send names that are not in the union. */
export type QmpEvent = QmpEventOf<QmpEventName>;

/** How one command is carried out. */
export interface ExecuteOptions extends WaitOptions {
  /**
   * Sends the command out of band: it overtakes all that is in flight. QEMU allows it for few
   * commands (`migrate-recover`, `migrate-pause`, `yank`), and where its greeting offered `oob`.
   */
  oob?: boolean | undefined;
}

/** Arguments may be left out where none of them is required. */
export type ExecuteParameters<C extends QmpCommandName> =
  Record<never, never> extends QmpArguments<C>
    ? [args?: QmpArguments<C>, options?: ExecuteOptions]
    : [args: QmpArguments<C>, options?: ExecuteOptions];

export type { WaitOptions };
