/** The host's end of the guest agent's protocol. */
export { openChannel, type ChannelTarget } from './dial.ts';
export type { GuestExec, GuestOutput } from './exec.ts';
export type { CallOptions } from './request.ts';
export { GuestSession, restoredError, type ConnectOptions, type WakeSpec } from './session.ts';
