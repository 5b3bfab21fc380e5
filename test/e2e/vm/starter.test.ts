/** A command that a waiting process becomes (guest-agent/starter.ts). */
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Vm } from '../../../src/vm/vm.ts';
import { SCALE } from '../../scale.ts';
import { useTestState } from './state.ts';

/** The agent has a process ready for the next command long before this; a plain start of Python takes less. */
const READY_MS = 4_000 * SCALE;
/** A process this old when its command was asked for had waited for it. */
const WAITED_S = (READY_MS / 1000) * 0.75;

/** Says what a process finds itself to be, and how long ago it was started. */
const LOOK = `
import json, os, signal, sys
stat = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
uptime = float(open('/proc/uptime').read().split()[0])
status = dict(line.rstrip('\\n').split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
print(json.dumps({
  'age': uptime - int(stat[19]) / os.sysconf('SC_CLK_TCK'),
  'me': {
    'argv': sys.orig_argv, 'name': status['Name'], 'env': dict(os.environ), 'cwd': os.getcwd(),
    'fds': {fd: os.readlink('/proc/self/fd/' + fd).split(':')[0] for fd in '0123456789' if os.path.exists('/proc/self/fd/' + fd)},
    'leads': [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    'ids': [os.getresuid(), os.getresgid(), os.getgroups()], 'umask': os.umask(0o22),
    'signals': [status[name] for name in ('SigBlk', 'SigIgn', 'SigCgt')], 'limits': open('/proc/self/limits').read(),
    'caps': [status[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'NoNewPrivs')],
    'stdin': sys.stdin.read(),
  },
}))`;

interface Look {
  readonly age: number;
  readonly me: Readonly<Record<string, unknown>>;
}

const state = useTestState();
let vm: Vm;
beforeAll(async () => {
  vm = await state.create();
  await vm.commands.run(['python3', '-c', 'import json']); // its first start takes seconds
});

const look = async (o: { cwd: string; stdin?: string; user?: string }): Promise<Look> => {
  const envs = { A: `it's "x"\n$HOME \`id\` \\`, PWD: 'mine', EMPTY: '' };
  const { stdout } = await vm.commands.run(['python3', '-c', LOOK], { ...o, envs });
  return JSON.parse(stdout) as Look;
};

describe('a command like the last, which a process has waited for', () => {
  it.each([{ stdin: 'some input' }, {}, { user: 'root' }])(
    'finds all as one that was started for it %j',
    async (o) => {
      await vm.commands.run(['true'], { cwd: '/usr' });
      const plain = await look({ cwd: '/var/tmp', ...o }); // another directory than the last's
      await delay(READY_MS);
      const waited = await look({ cwd: '/var/tmp', ...o });
      expect(plain.age).toBeLessThan(WAITED_S);
      expect(waited.age).toBeGreaterThan(WAITED_S);
      expect(waited.me).toEqual(plain.me);
    },
  );

  it('starts anew where the waiting one was killed', async () => {
    await vm.commands.run(['true'], { cwd: '/' });
    await delay(READY_MS);
    // It is found by what it waits as.
    const { stdout } = await vm.commands.run('pkill -KILL -f /proc/self/fd/[3]; echo $?', {
      cwd: '/tmp',
    });
    expect(stdout).toBe('0\n');
    expect(await vm.commands.run(['echo', 'well'], { cwd: '/' })).toMatchObject({
      stdout: 'well\n',
      exitCode: 0,
    });
  });

  it('is refused by the same names', async () => {
    await vm.commands.run(['true']);
    await delay(READY_MS);
    const call = vm.commands.run(['no-such-program']);
    await expect(call).rejects.toMatchObject({ guestCode: 'ENOENT' });
    expect(await vm.commands.run(['printf', '%s', "é'\u0081"])).toMatchObject({
      stdout: "é'\u0081",
    });
  });
});
