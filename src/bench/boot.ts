import { AGENT_FILE, type AgentFiles } from '../../guest-agent/bundle.ts';
import { Vm } from '../vm/index.ts';
import { BareVm } from './bare-vm.ts';
import { interleave } from './interleave.ts';
import type { BenchReport, BenchSeries } from './report.ts';
import {
  beginRun,
  makeReport,
  subjectOf,
  type BenchOptions,
  type BenchSubject,
} from './subject.ts';

/**
 * What the init of a bare VM starts: one line, one byte. The port is looked up, as its number depends on
 * the order in which the kernel finds the devices.
 */
const ONE_BYTE: AgentFiles = {
  hash: 'one-byte',
  files: [
    {
      name: AGENT_FILE,
      mode: 0o755,
      data: Buffer.from(
        "const fs = require('node:fs'); for (const port of fs.readdirSync('/sys/class/virtio-ports')) fs.writeFileSync(`/dev/${port}`, 'x');",
      ),
    },
  ],
};

/** One boot of a real VM: ms from spawn to the agent's answer, and to the end of the first `true`. */
async function bootOnce(options: BenchOptions): Promise<{ ready: number; exec: number }> {
  let spawned = 0;
  let ready = 0;
  await using vm = await Vm.create({
    ...options.vm,
    signal: options.signal,
    onProgress: (step) => {
      if (step === 'launch') spawned = performance.now();
      if (step === 'ready') ready = performance.now();
    },
  });
  await vm.commands.run(['true'], { signal: options.signal });
  return { ready: ready - spawned, exec: performance.now() - spawned };
}

/** One boot by hand: ms from spawn to the byte of a Node program that the same init started. */
async function bootBare(options: BenchOptions, subject: BenchSubject): Promise<number> {
  const { store, qemuPath, signal } = options;
  const channel = 'virtio-serial'; // one line of Node cannot speak vsock
  await using bare = await BareVm.start({
    ...subject,
    ...{ store, qemuPath, signal, channel, program: ONE_BYTE },
  });
  await bare.connect();
  return performance.now() - bare.spawnedAt;
}

/**
 * `boot.ready` (spawn to agent answering) and `boot.exec` (to the first `true` done) of the same
 * boots, beside `boot.floor`: bare QEMU with the same kernel, initramfs and disk.
 *
 * @throws whatever `Vm.create` throws
 */
export async function benchBoot(options: BenchOptions): Promise<BenchReport> {
  const begun = beginRun();
  const subject = await probe(options);
  const exec: number[] = [];
  const taken = await interleave(
    [
      {
        name: 'boot.ready',
        unit: 'ms',
        sample: async () => {
          const boot = await bootOnce(options);
          exec.push(boot.exec);
          return boot.ready;
        },
      },
      { name: 'boot.floor', unit: 'ms', sample: () => bootBare(options, subject) },
    ],
    options,
  );
  const series: BenchSeries[] = [
    ...taken,
    { name: 'boot.exec', unit: 'ms', samples: exec.slice(-options.runs) },
  ];
  return makeReport(begun, subject, series, [
    ['boot.ready-to-floor', 'boot.ready', 'boot.floor'],
    ['boot.exec-to-floor', 'boot.exec', 'boot.floor'],
  ]);
}

/** One VM outside the measurement: tells what `auto` came down to. */
async function probe(options: BenchOptions): Promise<BenchSubject> {
  await using vm = await Vm.create({ ...options.vm, signal: options.signal });
  return await subjectOf(await vm.info(), options);
}
