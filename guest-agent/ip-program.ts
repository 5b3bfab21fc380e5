/** The same as by rtnetlink, by the image's `ip` program: where libc cannot be called. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { NetworkSpec } from './protocol.ts';
import { RequestError } from './request-error.ts';

/** A process under emulation, on a busy host. */
const RUN_MS = 10_000;
const FAILED = 500;

const run = promisify(execFile);

/** @throws RequestError `ENOENT` the image has no `ip`; `EIO` it fails, in its own words */
export async function ipProgram(name: string, spec: NetworkSpec): Promise<void> {
  for (const args of ipCommands(name, spec)) {
    try {
      await run('ip', args, { timeout: RUN_MS });
    } catch (error) {
      const { code, stderr = '' } = error as { code?: unknown; stderr?: string };
      const why =
        code === 'ENOENT'
          ? 'the image has neither a C library that can be called nor the program `ip`'
          : `ip ${args.join(' ')}: ${stderr.trim() || String(code)}`;
      const errno = code === 'ENOENT' ? 'ENOENT' : 'EIO';
      throw new RequestError(errno, `the network cannot be set: ${why}`, FAILED);
    }
  }
}

/** Arguments of `ip`, one call after the other. Pure. */
export function ipCommands(name: string, spec: NetworkSpec): string[][] {
  const commands = [
    ['link', 'set', 'dev', name, 'down'],
    ['address', 'flush', 'dev', name],
  ];
  if (!spec.up) return commands;
  const { address, prefix, peer, gateway, gatewayMac, mac, mtu, v6 } = spec;
  commands.push(
    [
      ...['link', 'set', 'dev', name],
      ...(mac === undefined ? [] : ['address', mac]),
      ...(mtu === undefined ? [] : ['mtu', String(mtu)]),
      'up',
    ],
    [
      ...['address', 'add'],
      ...(peer === undefined
        ? [`${address}/${prefix}`, ...(prefix <= 30 ? ['broadcast', '+'] : [])]
        : [address, 'peer', `${peer}/${prefix}`]),
      ...['dev', name],
    ],
  );
  if (gateway !== undefined) commands.push(...wayOut(name, gateway, gatewayMac));
  if (v6 === undefined) return commands;
  commands.push(['-6', 'address', 'add', `${v6.address}/${v6.prefix}`, 'dev', name, 'nodad']);
  const way = wayOut(name, v6.gateway, v6.gatewayMac);
  return [...commands, ...way.map((args) => ['-6', ...args])];
}

function wayOut(name: string, gateway: string, mac: string | undefined): string[][] {
  const neighbour = ['neighbour', 'replace', gateway, 'lladdr', mac ?? '', 'dev', name];
  return [
    ...(mac === undefined ? [] : [[...neighbour, 'nud', 'permanent']]),
    ['route', 'replace', 'default', 'via', gateway, 'dev', name, 'onlink'],
  ];
}
