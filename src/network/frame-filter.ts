/**
 * What stands in for the guard of a VM on a bridge where somebody flushes it (`nft flush ruleset`): the same questions at
 * the same place, asked by classic BPF (tc-bpf(8), direct action; kernel `Documentation/networking/filter.rst`). The kernel
 * keeps it apart from nftables, and it goes with its tap. It comes first, so that the guard sees what has passed it.
 */
import type { BridgedVm } from '../../nft/index.ts';
import { HostError, NetworkInterfaceError } from '../errors.ts';
import { tcBatch, tcText, type IpCallOptions } from './ip-command.ts';

/** Instructions that load, that jump, and the last one (`linux/bpf_common.h`). */
const LOAD = { word: 0x20, half: 0x28, byte: 0x30, length: 0x80 };
const JUMP_IF = { equal: 0x15, atLeast: 0x35 };
const END = 0x06;
/** An offset that stands for no byte of the frame: SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT (`linux/filter.h`). */
const HAS_VLAN_TAG = 2 ** 32 - 0x1000 + 48;
/** What becomes of a frame (`linux/pkt_cls.h`): TC_ACT_OK, TC_ACT_SHOT, and TC_ACT_UNSPEC, the next program is asked. */
const [PASS, DROP, ASK_NEXT] = [0, 2, 2 ** 32 - 1];
/** Heads of Ethernet and of IPv4, or with a whole claim of ARP. A load from behind the end would let a frame pass. */
const [IPV4_BYTES, ARP_BYTES] = [14 + 20, 14 + 28];

/** Loads from an offset, and looks whether it is so. */
type Question = readonly [load: number, offset: number, test: number, value: number];

/**
 * One for IPv4 and then one for ARP, as `tc` takes and shows them: `COUNT,CODE TRUE FALSE VALUE,…`, jumps counted from the
 * next instruction. Pure.
 */
export function framePrograms({ mac, address }: Pick<BridgedVm, 'mac' | 'address'>): string[] {
  const bytes = Buffer.from(mac.replaceAll(':', ''), 'hex');
  const own = Buffer.from(address.split('.').map(Number)).readUInt32BE();
  const is = (load: number, offset: number, value: number): Question => {
    return [load, offset, JUMP_IF.equal, value];
  };
  const isFrom = (offset: number): Question[] => [
    is(LOAD.word, offset, bytes.readUInt32BE()),
    is(LOAD.half, offset + 4, bytes.readUInt16BE(4)),
  ];
  const isFrame = (etherType: number, length: number): Question[] => [
    [LOAD.length, 0, JUMP_IF.atLeast, length],
    is(LOAD.byte, HAS_VLAN_TAG, 0),
    ...isFrom(6),
    is(LOAD.half, 12, etherType),
  ];
  return [
    program([...isFrame(0x0800, IPV4_BYTES), is(LOAD.word, 26, own)], ASK_NEXT),
    program(
      [
        ...isFrame(0x0806, ARP_BYTES),
        is(LOAD.word, 14, 0x0001_0800), // of Ethernet and IPv4,
        is(LOAD.half, 18, 0x0604), // whose addresses have six and four bytes
        ...isFrom(22),
        is(LOAD.word, 28, own),
      ],
      DROP,
    ),
  ];
}

/** Where all of it is so the frame passes. */
function program(questions: readonly Question[], otherwise: number): string {
  const steps = questions.flatMap(([load, offset, test, value], index) => {
    const toOtherwise = 2 * (questions.length - index) - 1;
    return [`${load} 0 0 ${offset}`, `${test} 0 ${toOtherwise} ${value}`];
  });
  const all = [...steps, `${END} 0 0 ${PASS}`, `${END} 0 0 ${otherwise}`];
  return [all.length, ...all].join(',');
}

/** In the place of whatever there is of it. Pure. */
export function frameFilterCommands(vm: BridgedVm): string[] {
  const at = `dev ${vm.tap} ingress protocol all`;
  return [
    `qdisc replace dev ${vm.tap} clsact`,
    ...framePrograms(vm).map(
      (text, index) =>
        `filter replace ${at} prio ${index + 1} handle 1 bpf direct-action bytecode "${text}"`,
    ),
  ];
}

/** @returns whether it is there now: it needs `tc`, and a kernel with `cls_bpf`. @throws as `tcBatch` */
export async function raiseFrameFilter(vm: BridgedVm, o: IpCallOptions = {}): Promise<boolean> {
  return unlessUnknown(() => tcBatch(frameFilterCommands(vm), o));
}

/** @returns whether the tap has it, of this VM. @throws as `tcText` */
export async function hasFrameFilter(vm: BridgedVm, o: IpCallOptions = {}): Promise<boolean> {
  let shown = '';
  await unlessUnknown(async () => {
    shown = await tcText(['filter', 'show', 'dev', vm.tap, 'ingress'], o);
  });
  return framePrograms(vm).every((text) => shown.includes(`bytecode '${text}'`));
}

async function unlessUnknown(call: () => Promise<void>): Promise<boolean> {
  try {
    await call();
    return true;
  } catch (error) {
    const isMissing = error instanceof HostError && error.code === 'ERR_HOST_TOOL';
    if (isMissing || error instanceof NetworkInterfaceError) return false;
    throw error;
  }
}
