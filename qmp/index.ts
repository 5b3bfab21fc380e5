/** QMP client for QEMU 7.2 to 10: see {@link QmpClient}. Knows nothing of VMs. */
export { QmpClient } from './client.ts';
export type { QmpConnectOptions, QmpEventsOptions, WaitForEventOptions } from './client.ts';
export type { QemuVersion } from './messages.ts';
export type {
  ExecuteOptions,
  ExecuteParameters,
  QmpArguments,
  QmpCommandName,
  QmpEvent,
  QmpEventData,
  QmpEventName,
  QmpEventOf,
  QmpReturn,
  WaitOptions,
} from './types.ts';
export type { QmpCommands } from './generated/commands.ts';
export type { QmpEvents } from './generated/events.ts';
