/** `qmp-agent qmp`. */
import { InvalidArgumentError, type Command } from 'commander';
import type { QmpClient, QmpConnectOptions } from '../../../qmp/index.ts';
import { parseMs } from '../../config/units.ts';
import { events } from '../../events.ts';
import type { VmState } from '../../vm/api.ts';
import { seconds } from '../config-flags.ts';
import type { CliContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { connectVm } from '../vm-access.ts';

interface QmpFlags {
  /** Milliseconds. */
  timeout?: number;
}

/** Adds `qmp`. */
export function registerQmp(program: Command, context: CliContext): void {
  program
    .command('qmp')
    .description("Send a command to a VM's QEMU, or open a prompt for commands and events.")
    .argument('<vm>', 'id, unique prefix of an id, or name; or the path of a QMP socket')
    .argument('[command]', 'QMP command, e.g. query-status; without one a prompt opens')
    .argument('[json]', `arguments as a JSON object, e.g. '{"id": "disk0"}'`)
    .option('--timeout <time>', 'what QEMU gets to answer a command (default: 60s)', timeout)
    .option('--json', 'print errors as JSON too')
    .action((vm: string, command: string | undefined, json: string | undefined, flags: QmpFlags) =>
      command === undefined
        ? prompt(context, vm, flags)
        : callOnce(context, vm, command, json, flags),
    );
}

function timeout(value: string): number {
  const timeoutMs = parseMs(seconds(value));
  if (timeoutMs === undefined) throw new InvalidArgumentError('give a time, e.g. 90s or 5m.');
  return timeoutMs;
}

async function callOnce(
  context: CliContext,
  vm: string,
  command: string,
  json: string | undefined,
  flags: QmpFlags,
): Promise<void> {
  const { callByHand } = await import('../qmp-call.ts');
  const { parseQmpArguments } = await import('../qmp-input.ts');
  const args = parseQmpArguments(command, json);
  await using client = await connect(context, vm);
  const wait = { signal: context.signal, timeoutMs: flags.timeout };
  context.printJson(await callByHand(client, { command, args }, wait));
}

async function prompt(context: CliContext, vm: string, flags: QmpFlags): Promise<void> {
  const { runQmpPrompt } = await import('../qmp-prompt.ts');
  const { stdin: input, stdout: output, style, signal } = context;
  await using client = await connect(context, vm);
  const wait = { signal, timeoutMs: flags.timeout };
  const { failed } = await runQmpPrompt(client, { input, output, style, ...wait });
  if (failed > 0 && !input.isTTY) context.exitCode = EXIT.failure;
}

async function connect(context: CliContext, vm: string): Promise<QmpClient> {
  const { QmpClient } = await import('../../../qmp/index.ts');
  return QmpClient.connect({ ...(await target(context, vm)), signal: context.signal });
}

/** The VM's second monitor: the first belongs to the process that owns the VM. */
async function target(
  context: CliContext,
  vm: string,
): Promise<Pick<QmpConnectOptions, 'path' | 'onLine'>> {
  if (vm.includes('/')) return { path: vm, onLine: tracer(undefined) };
  const instance = await connectVm(context, vm);
  try {
    const { id, state, monitorPath } = instance;
    if (state === 'stopped' || state === 'suspended') throw await notRunning(id, state);
    return { path: monitorPath, onLine: tracer(id) };
  } finally {
    await instance.close();
  }
}

async function notRunning(id: string, state: VmState): Promise<Error> {
  const { wrongState } = await import('../../vm/find-vm.ts');
  return wrongState(id, ['running', 'paused'], state);
}

function tracer(vmId: string | undefined): QmpConnectOptions['onLine'] {
  if (!events.traces('qmp')) return undefined;
  return (direction, line) => {
    events.emit('trace.qmp', { vmId, direction, line });
  };
}
