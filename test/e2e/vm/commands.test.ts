/** `vm.commands`, all of it on one VM. */
import { beforeAll } from 'vitest';
import type { Vm } from '../../../src/vm/vm.ts';
import { describeBackground } from './commands/background.ts';
import { describeEnd } from './commands/end.ts';
import { describeOutput } from './commands/output.ts';
import { describePause } from './commands/pause.ts';
import { describeRun } from './commands/run.ts';
import { describeStdin } from './commands/stdin.ts';
import { useTestState } from './state.ts';

const state = useTestState();
let made: Vm;
beforeAll(async () => {
  made = await state.create();
});

const vm = () => made;
describeRun(vm);
describeStdin(vm);
describeEnd(vm);
describeOutput(vm);
describeBackground(vm);
describePause(vm);
