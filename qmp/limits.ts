/**
 * Every limit of the client in one place. QEMU is trusted more than a guest is, yet a QEMU that a
 * guest took over can write anything to its monitor, so nothing here may grow without bound.
 */

/**
 * Longest line accepted, in bytes, without its line end. The longest regular answer,
 * `query-qmp-schema`, is some 0.25 MB; `qom-list-properties` and `query-blockstats` stay below it.
 */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;

/**
 * In-band commands sent and not yet answered. QEMU's own queue holds 8 (`QMP_REQ_QUEUE_LEN_MAX`);
 * beyond that it stops reading the socket, and an out-of-band command could no longer overtake.
 * Source: docs/interop/qmp-spec, "Issuing Commands".
 */
export const MAX_IN_FLIGHT = 8;

/** Out-of-band commands sent and not yet answered. */
export const MAX_OOB_IN_FLIGHT = 8;

/** Commands that wait in this process for a free place among those in flight. */
export const MAX_WAITING_CALLS = 4096;

/** Events that one iterator holds for a consumer that does not keep up. */
export const MAX_QUEUED_EVENTS = 1024;

/** Time for the connection, the greeting and the negotiation together, where no other is given. */
export const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;

/** Between two tries to connect to a socket whose waiting places are all taken. */
export const BUSY_RETRY_MS = 20;

/** Time for one command, from the call to its answer, where no other is given. */
export const DEFAULT_CALL_TIMEOUT_MS = 60_000;

/** Time a job has to end after it was told to cancel. */
export const JOB_CANCEL_TIMEOUT_MS = 10_000;

/** `sizeof(sockaddr_un.sun_path)` is 108 on Linux, one byte of it the closing NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** How much of a bad line an error message quotes, in characters. */
export const QUOTED_CHARS = 120;
