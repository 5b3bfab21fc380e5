/**
 * What stands in for the guard of a VM on a bridge where somebody flushes it (`nft flush ruleset`): the same questions at
 * the same place, asked by classic BPF (tc-bpf(8), direct action; kernel `Documentation/networking/filter.rst`). The kernel
 * keeps it apart from nftables, and it goes with its tap. It comes first, so that the guard sees what has passed it.
 */
import type { BridgedVm } from '../../nft/index.ts';
import { HostError, NetworkInterfaceError } from '../errors.ts';
import { warnOnce } from '../host-warning.ts';
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
/**
 * What is said where `tc` or the kernel knows no such kind (iproute2's `tc_filter.c`; the kernel's `sch_api.c`, `cls_api.c`),
 * and its errors where either of them has no words for that.
 */
const UNKNOWN_KIND =
  /^(?:Unknown (?:filter|qdisc) "|Error: (?:TC classifier not found|Specified qdisc kind is unknown)|RTNETLINK answers: (?:No such file or directory|Operation not supported)$)/m;
const NO_TAP = /^Cannot find device /m;

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

/**
 * @returns whether it is there now. Where there is no `tc`, or no `cls_bpf` in the kernel, it is not, with a warning
 * @throws as `tcBatch`
 */
export async function raiseFrameFilter(vm: BridgedVm, o: IpCallOptions = {}): Promise<boolean> {
  try {
    await tcBatch(frameFilterCommands(vm), o);
    return true;
  } catch (error) {
    if (!isUnknown(error)) throw error;
    warnAboutFlushes(error);
    return false;
  }
}

/** @returns whether the tap has it, of this VM; one that is gone has it not. @throws as `tcText` */
export async function hasFrameFilter(vm: BridgedVm, o: IpCallOptions = {}): Promise<boolean> {
  try {
    const shown = await tcText(['filter', 'show', 'dev', vm.tap, 'ingress'], o);
    return framePrograms(vm).every((text) => shown.includes(`bytecode '${text}'`));
  } catch (error) {
    const isGone = error instanceof NetworkInterfaceError && NO_TAP.test(error.stderr);
    if (isGone || isUnknown(error)) return false;
    throw error;
  }
}

/** Whether this host cannot have it, whatever the tap: anything else is worth a second look. */
function isUnknown(error: unknown): error is HostError | NetworkInterfaceError {
  if (error instanceof NetworkInterfaceError) return UNKNOWN_KIND.test(error.stderr);
  return error instanceof HostError && error.code === 'ERR_HOST_TOOL';
}

function warnAboutFlushes(why: HostError | NetworkInterfaceError): void {
  const remedy =
    why instanceof HostError
      ? (why.hint ?? 'Install iproute2.')
      : 'Load what the kernel lacks: modprobe -a sch_ingress cls_bpf.';
  warnOnce('network.frame-filter', {
    code: 'network.frame-filter',
    message: `who flushes the ruleset (nft flush ruleset) takes the guards of VMs on bridges away, until \`qmp-agent gc\` or their next start, as nothing stands in for them here: ${why.message}`,
    hint: `${remedy} Run \`qmp-agent gc\` after that, and after each flush.`,
  });
}
