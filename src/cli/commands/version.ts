/** `qmp-agent version`. */
import type { Command } from 'commander';
import { PROTOCOL_VERSION } from '../../../guest-agent/protocol.ts';
import type { CliContext } from '../context.ts';
import { readVersion } from '../version.ts';

/** Adds `version`. */
export function registerVersion(program: Command, context: CliContext): void {
  program
    .command('version')
    .description('Show the version of qmp-agent, Node and the guest protocol.')
    .option('--json', 'print JSON')
    .action(() => {
      const version = readVersion();
      const node = process.version;
      if (context.json) context.printJson({ version, node, guestProtocol: PROTOCOL_VERSION });
      else context.print(`qmp-agent ${version} (Node ${node}, guest protocol ${PROTOCOL_VERSION})`);
    });
}
