/**
 * Which taps are being made. Between the command that makes one and the one that writes on it whose it is, a tap looks as
 * one that a user has made for himself: so it is written down beforehand, and what is not is left alone by `gc`.
 */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isThere } from '../host-files.ts';
import { HOST_DIR } from './host-dir.ts';

const PREFIX = 'making-';

/** Call these three under the host's lock. */
export async function noteMaking(tap: string): Promise<void> {
  await writeFile(pathOf(tap), '');
}

/** It says itself whose it is by now, or is gone. */
export async function forgetMaking(tap: string): Promise<void> {
  await rm(pathOf(tap), { force: true });
}

/** Taps that somebody makes, or was making when he died. */
export async function tapsInMaking(): Promise<string[]> {
  const names = await readdir(HOST_DIR).catch(() => []);
  return names.flatMap((name) => (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : []));
}

/** Whether this is one of them. */
export function isInMaking(tap: string): Promise<boolean> {
  return isThere(pathOf(tap));
}

function pathOf(tap: string): string {
  return join(HOST_DIR, PREFIX + tap);
}
