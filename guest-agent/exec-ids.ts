/**
 * Ids of execs. Memory that is put back to a snapshot, or copied, brings a counter back with it: the id
 * of an exec that is no more would be given to another, and whoever still holds it would reach that. So
 * the counter stands beside a random part, which is drawn anew when the guest gets fresh entropy; that is
 * the first thing that happens to it then.
 */
import { closeSync, openSync, readSync } from 'node:fs';

const EPOCH_BYTES = 6;

let epoch: string | undefined;
let count = 0;

/** An id that no exec of this guest has had, in whatever copy or past of it. */
export function nextExecId(): string {
  epoch ??= drawEpoch();
  count += 1;
  return `${epoch}-${count}`;
}

/** The kernel's generator was reseeded: ids are of another kind from here on. */
export function renewExecIds(): void {
  epoch = undefined;
}

/** From the kernel: Node's own generator is a part of the memory that was copied. */
function drawEpoch(): string {
  const bytes = Buffer.alloc(EPOCH_BYTES);
  const fd = openSync('/dev/urandom', 'r');
  try {
    readSync(fd, bytes);
  } finally {
    closeSync(fd);
  }
  return bytes.toString('hex');
}
