/** `vm.network`: what a VM may reach, and what it did. */
import { dirname } from 'node:path';
import { StateError } from '../errors.ts';
import {
  awaitNames,
  bridgedTapOf,
  changeEgress,
  checkReach,
  countersOf,
  effectiveLimits,
  parseLan,
  publishedText,
  readEntryOf,
  readLog,
  resolveEgress,
  type CaptureOptions,
  type EgressOptions,
  type EgressRequest,
  type LimitOptions,
  type NetworkCapture,
  type TrafficRecord,
} from '../network/index.ts';
import type { WaitOptions } from './api.ts';
import { downOrAlive } from './down-or-alive.ts';
import type { NetworkApi, NetworkInfo, RecordsOptions } from './network-types.ts';
import { writeRecord, type VmConfig } from './record.ts';
import { captureVm } from './vm-capture.ts';
import type { VmInside } from './vm-inside.ts';

/** See {@link NetworkApi}. */
export class VmNetworkControl implements NetworkApi {
  readonly #vm: VmInside;

  constructor(vm: VmInside) {
    this.#vm = vm;
  }

  async info(): Promise<NetworkInfo> {
    const { id, config } = this.#vm;
    const { network: mode, egress = {}, lan } = config;
    if (lan !== undefined) {
      const { address, gateway } = parseLan(lan);
      const tap = await bridgedTapOf(this.#runtimeDir, id);
      const place =
        tap === undefined ? {} : { tap, guestAddress: address, gatewayAddress: gateway };
      return { mode, egress: undefined, lan, ...place };
    }
    const entry = mode === 'nat-filtered' ? await readEntryOf(this.#runtimeDir, id) : undefined;
    if (entry === undefined) {
      if (mode !== 'nat-filtered') return { mode, egress: undefined };
      return { mode, egress, limits: effectiveLimits(egress.limits) };
    }
    const { tap, guestAddress, gatewayAddress, v6, policy } = entry.network;
    const counters = await countersOf(entry);
    const byRule = new Map(counters?.byRule);
    return {
      ...{ mode, tap, guestAddress, gatewayAddress, ipv6: v6, egress: entry.egress },
      limits: effectiveLimits(entry.egress.limits),
      published: entry.published.map(publishedText),
      sent: counters?.sent,
      received: counters?.received,
      denied: counters?.denied,
      rules: policy.rules.map(({ id: ruleId, title, action, protocol, ports }) => ({
        ...{ title, action, protocol, ports },
        count: byRule.get(ruleId),
      })),
    };
  }

  async set(egress: EgressRequest, o: WaitOptions = {}): Promise<EgressOptions> {
    const resolved = await resolveEgress(egress);
    return this.#change(() => resolved, o);
  }

  async allow(more: EgressRequest, o: WaitOptions = {}): Promise<EgressOptions> {
    const { public: isPublic, ...resolved } = await resolveEgress(more);
    // What was open stays open: a name more does not shut the public addresses.
    const wanted = more.public ?? isPublic;
    return this.#change((before) => {
      const wasPublic = before.public ?? (before.allowDomains ?? []).length === 0;
      return { ...joined(before, resolved), public: wasPublic || wanted === true };
    }, o);
  }

  async deny(more: EgressRequest, o: WaitOptions = {}): Promise<EgressOptions> {
    return this.#change((before) => {
      const after = joined(before, { denyDomains: more.denyDomains, denyCidrs: more.denyCidrs });
      return more.public === false ? { ...after, public: false } : after;
    }, o);
  }

  async limit(limits: LimitOptions, o: WaitOptions = {}): Promise<EgressOptions> {
    return this.#change((before) => ({ ...before, limits: { ...before.limits, ...limits } }), o);
  }

  async *records(o: RecordsOptions = {}): AsyncIterable<TrafficRecord> {
    const { networkLogPath: own } = this.#vm.files;
    const loan = (await readEntryOf(this.#runtimeDir, this.#vm.id))?.loan;
    // What is recorded of a borrowed tap comes after what was, of earlier ones.
    if (loan !== undefined)
      for await (const line of readLog(own, { signal: o.signal })) yield* wanted(line, o);
    for await (const line of readLog(loan?.logPath ?? own, o)) yield* wanted(line, o);
  }

  capture(o: CaptureOptions & Pick<WaitOptions, 'signal'>): Promise<NetworkCapture> {
    return captureVm(this.#vm, o);
  }

  async #change(
    make: (before: EgressOptions) => EgressOptions,
    o: WaitOptions,
  ): Promise<EgressOptions> {
    const { id, files } = this.#vm;
    let after: EgressOptions = {};
    const changed = (config: VmConfig): VmConfig => {
      if (config.network !== 'nat-filtered') throw noPolicy(id, config.network);
      return { ...config, egress: after };
    };
    await downOrAlive(this.#vm, o, {
      check: ({ config }) => void changed(config),
      down: async (record) => {
        after = make(record.config.egress ?? {});
        checkReach(after, { hasIpv6: record.config.ipv6 === true }); // else it could never start
        await writeRecord(files, { ...record, config: changed(record.config) });
      },
      alive: async () => {
        const entry = await changeEgress(this.#runtimeDir, id, make);
        after = entry.egress;
        const { record } = this.#vm;
        const { state, detail } = record;
        await this.#vm.write({ state, detail, config: changed(record.config) });
        await awaitNames({ runtimeDir: this.#runtimeDir, vmId: id }, o);
      },
    });
    return after;
  }

  get #runtimeDir(): string {
    return dirname(this.#vm.files.runtimeDir);
  }
}

/** The lists of both, each word once; else what is newer. */
function joined(before: EgressOptions, more: EgressOptions): EgressOptions {
  const lists = ['allowDomains', 'denyDomains', 'allowCidrs', 'denyCidrs', 'allowPorts'] as const;
  const both: Partial<Record<(typeof lists)[number], string[]>> = {};
  for (const key of lists) both[key] = [...new Set([...(before[key] ?? []), ...(more[key] ?? [])])];
  return {
    ...before,
    ...both,
    ...(more.denial === undefined ? {} : { denial: more.denial }),
    ...(more.limits === undefined ? {} : { limits: { ...before.limits, ...more.limits } }),
  };
}

function* wanted(line: string, o: RecordsOptions): Generator<TrafficRecord> {
  if (line === '') return;
  let record: TrafficRecord;
  try {
    record = JSON.parse(line) as TrafficRecord;
  } catch {
    return; // cut off by a full disk
  }
  const isDenied =
    record.kind === 'denied' || (record.kind === 'dns' && record.verdict !== 'answered');
  if (o.denied !== true || isDenied) yield record;
}

function noPolicy(id: string, network: string | undefined): StateError {
  return new StateError(`VM ${id} has the network ${network ?? 'of none'}, which has no policy`, {
    ...{ vmId: id, actual: network ?? 'none', required: ['nat-filtered'] },
    hint: 'Make it with --network nat-filtered.',
  });
}
