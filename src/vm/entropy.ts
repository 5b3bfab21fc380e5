/** Seeds for guests that must not draw what another, or they themselves before, have drawn. */
import { randomBytes } from 'node:crypto';

/** Twice what the guest's random generator holds. */
const ENTROPY_BYTES = 64;

/** What the guest's random generator gets. */
export function freshEntropy(): Buffer {
  return randomBytes(ENTROPY_BYTES);
}
