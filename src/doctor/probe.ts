/** Looks at the host. Everything else in this folder only judges what comes from here. */
import { readFile } from 'node:fs/promises';
import { delimiter } from 'node:path';
import { execa } from 'execa';
import { findProgram as findIn } from '../host-files.ts';

/** A program that does not answer by then counts as broken. */
const TOOL_TIMEOUT_MS = 10_000;
/** Output kept of a program. */
const TOOL_OUTPUT_BYTES = 1024 * 1024;

/** Debian has system programs here, and users' PATH often does not. */
const SYSTEM_DIRS = ['/usr/sbin', '/sbin'];

/** A small file's text; undefined where it cannot be read. */
export async function readText(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch(() => undefined);
}

/** A program's path; undefined where there is none. */
export async function findProgram(
  program: string,
  env: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  return findIn(program, [env['PATH'] ?? '', ...SYSTEM_DIRS].join(delimiter));
}

/** What a program printed, both streams; undefined where it failed. */
export async function runProgram(
  path: string,
  args: readonly string[],
): Promise<string | undefined> {
  const { all, failed } = await execa(path, args, {
    all: true,
    reject: false,
    stdin: 'ignore',
    timeout: TOOL_TIMEOUT_MS,
    maxBuffer: TOOL_OUTPUT_BYTES,
  });
  return failed ? undefined : all;
}
