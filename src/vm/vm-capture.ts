/** Captures of a VM's packets: of one that runs, and of one from before its guest does. */
import { formatBytes } from '../config/units.ts';
import { ConfigError, StateError } from '../errors.ts';
import { events, type EventOf } from '../events.ts';
import {
  checkCapture,
  FollowedCapture,
  type NetworkCapture,
  PacketCapture,
  type CaptureConfig,
  type CaptureOptions,
  type CaptureResult,
} from '../network/index.ts';
import { hasTap } from '../network/mode.ts';
import type { WaitOptions } from './api.ts';
import { wrongState } from './find-vm.ts';
import { LiveVm, type LaunchContext } from './live-vm.ts';
import { tapNowOf, type StartPlace } from './network-of.ts';
import type { VmConfig } from './record.ts';
import { PCAP } from './vm-config.ts';
import type { VmInside } from './vm-inside.ts';

const WITH_TAP =
  'Make the VM with --network nat-filtered, or bridge=NAME: packets are seen at taps.';

/** Of a VM that runs. See `NetworkApi.capture`. */
export async function captureVm(
  vm: VmInside,
  { signal, ...options }: CaptureOptions & Pick<WaitOptions, 'signal'>,
): Promise<NetworkCapture> {
  const section = 'capture';
  const checked = checkCapture(options, section);
  const { id, config } = vm;
  if (!hasTap(config.network)) {
    const actual = config.network ?? 'none';
    const details = { vmId: id, actual, required: ['nat-filtered', 'bridge'], hint: WITH_TAP };
    throw new StateError(whyNothing(config), details);
  }
  const live = await vm.takeUp();
  const { tap, loan } = (await tapNowOf(vm)) ?? {};
  if (tap === undefined) throw wrongState(id, ['running', 'paused'], vm.state);
  const on = { vmId: id, tap, section, signal };
  if (checked.follow)
    return FollowedCapture.start({ ...checked, ...on, loan, look: () => tapNowOf(vm) });
  const capture = await PacketCapture.start({ ...checked, ...on });
  capture.endWith(live.watch.ended);
  return capture;
}

function whyNothing({ network }: Pick<VmConfig, 'network'>): string {
  return network === 'user'
    ? 'the packets of the network user never leave QEMU: there is no interface to capture at'
    : `there is nothing to capture: the network is ${network ?? 'none'}`;
}

/** Undefined: no capture is asked for. Pure. @throws ConfigError this VM has none, or `vm.pcap` is none */
export function pcapOf(
  pcap: CaptureOptions | undefined,
  config: Pick<VmConfig, 'network'>,
): CaptureConfig | undefined {
  if (pcap === undefined) return undefined;
  const checked = checkCapture(pcap, PCAP);
  if (checked.follow) {
    const hint =
      'It ends with this life of the VM. Capture a VM that runs (`vm.network.capture`) to follow it.';
    throw new ConfigError('a capture that begins with the VM follows it into no other life', {
      ...{ field: `${PCAP}.follow`, value: true, hint },
    });
  }
  if (hasTap(config.network)) return checked;
  throw new ConfigError(whyNothing(config), { field: PCAP, value: pcap.file, hint: WITH_TAP });
}

/**
 * Launches a VM with its packets captured, where that is asked for: nothing of its guest's passes the tap before.
 * @throws what `LiveVm.launch` and `PacketCapture.start` throw, and what the VM's rules are refused by
 */
export async function launchCaptured(
  pcap: CaptureConfig | undefined,
  place: StartPlace | undefined,
  context: LaunchContext,
): Promise<LiveVm> {
  const launch = () => LiveVm.launch({ ...context, place: place?.at });
  if (pcap === undefined || place === undefined) return launch();
  await place.whole; // at a tap that is down nobody can listen
  const { id: vmId } = context;
  const on = { vmId, tap: place.at.tap, section: PCAP };
  const capture = await PacketCapture.start({ ...pcap, ...on });
  void capture.ended.then((result) => {
    const holes = holesIn(result);
    if (holes !== undefined)
      events.emit('host.warning', { vmId, code: 'network.capture', ...holes });
  });
  try {
    const live = await launch();
    capture.endWith(live.watch.ended);
    live.capture = capture;
    return live;
  } catch (error) {
    await capture.discard(); // no guest has run
    throw error;
  }
}

/** What is wrong with a capture for whose end nobody waits; undefined: nothing. Pure. */
export function holesIn(
  result: CaptureResult,
): Pick<EventOf<'host.warning'>, 'message' | 'hint'> | undefined {
  const { reason, packets, bytes, dropped = 0, error } = result;
  const had = `${packets} packets, ${formatBytes(bytes)}`;
  if (reason === 'max-bytes' || reason === 'failed') {
    const why = error?.message ?? 'its bound is reached';
    return {
      message: `the capture of packets ended before the VM, with ${had}: ${why}`,
      hint: 'Give it a larger bound (--pcap-max-size), or more space.',
    };
  }
  if (dropped === 0) return undefined;
  return {
    message: `the capture of packets (${had}) lacks ${dropped}: it was too slow for them`,
    hint: 'Capture less of each packet (snaplen), or have the guest send less at a time.',
  };
}
