/** Records of VMs on lent taps, with real taps, rules, services and tcpdump; what QEMU would send is sent by a script. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { VmNetwork } from '../../../nft/index.ts';
import type { ConnectionRecord } from '../../../src/network/traffic/record.ts';
import { SCALE } from '../../scale.ts';
import { LendingHost } from './lending-host.ts';
import type { TestHost } from './test-host.ts';

const [ROOT, USER] = [0, 65_534];
/** The service looks at its taps every two seconds. */
const LOOK = { timeout: 15_000 * SCALE, interval: 200 };
const SENDER = join(import.meta.dirname, 'tap-sender.py');
const [WEB, STRANGER] = ['1.1.1.1', '9.9.9.9'];
/** What is behind the host is nobody; from there, `UP` sends a packet of a stranger's to whom it is told. */
const UPSTREAM = `
ip link add up0 address 02:00:00:00:01:01 type veth peer name up1
ip link set up0 up
ip link set up1 up
ip address add 198.51.100.1/24 dev up0
ip neighbour add 198.51.100.2 lladdr 02:00:00:00:01:02 dev up0 nud permanent
ip route add default via 198.51.100.2
`;
const UP = `
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total > 0xffff: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
head = struct.pack('!BBHHHBBH', 0x45, 0, 28, 1, 0, 64, 17, 0) + socket.inet_aton('${STRANGER}') + socket.inet_aton(sys.argv[1])
head = head[:10] + struct.pack('!H', checksum(head)) + head[12:]
up = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
up.bind(('up1', 0))
up.send(bytes.fromhex('020000000101' '020000000102' '0800') + head + struct.pack('!HHHH', 7, 7, 8, 0))
`;

let lending: LendingHost;
let host: TestHost;
beforeAll(async () => {
  lending = await LendingHost.start([ROOT, USER]);
  ({ host } = lending);
  await host.run('sh', '-ec', UPSTREAM);
  await host.module(`await network.setUpNetwork({ taps: { count: 2, uid: ${USER} } });`);
});
afterAll(async () => {
  await leaveAll();
  await host.module(`await network.undoNetworkSetup();`);
  await vi.waitFor(async () => expect(await lending.services()).toBe(''), LOOK);
  await lending[Symbol.asyncDispose]();
});

/** One VM, as a script that has its tap open. */
class Guest implements AsyncDisposable {
  readonly #vm: VmNetwork;
  readonly #sender: ChildProcess;

  private constructor(vm: VmNetwork, sender: ChildProcess) {
    this.#vm = vm;
    this.#sender = sender;
  }

  static async start(uid: number, vm: VmNetwork): Promise<Guest> {
    const [file, argv] = host.command([
      ...(uid === ROOT ? [] : lending.rights(uid)),
      ...['python3', SENDER, vm.tap],
    ]);
    const sender = spawn(file, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(sender.stdout, 'data');
    return new Guest(vm, sender);
  }

  /** A connection that is let through, a datagram that is not, one in another's name, and one that comes from a stranger. */
  async send(): Promise<void> {
    const { mac, guestAddress } = this.#vm;
    for (const line of [
      `${guestAddress} ${WEB} 443`,
      `${guestAddress} ${WEB} 99 x`,
      `10.9.9.9 ${WEB} 98 x`,
    ]) {
      this.#sender.stdin?.write(`${mac} ${line}\n`);
      await once(this.#sender.stdout!, 'data');
    }
    await host.run('python3', '-c', UP, guestAddress);
  }

  /** What is to be on record of that. */
  get records(): Partial<ConnectionRecord>[] {
    const { guestAddress: from } = this.#vm;
    return [
      { kind: 'connection', protocol: 'tcp', from, to: WEB, toPort: 443, rule: 'public addresses' },
      { kind: 'denied', protocol: 'udp', from, to: WEB, toPort: 99, cause: 'policy' },
      { kind: 'denied', protocol: 'udp', from: '10.9.9.9', to: WEB, toPort: 98, cause: 'spoof' },
      { kind: 'denied', protocol: 'udp', from: STRANGER, to: from, cause: 'inward' },
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#sender, 'exit');
    if (this.#sender.kill('SIGKILL')) await gone;
  }
}

const guests: { guest: Guest; uid: number; path: string }[] = [];
const leaveAll = async () => {
  for (const { guest, uid } of guests.splice(0)) {
    await guest[Symbol.asyncDispose]();
    await lending.as(uid, leave1);
  }
};
const recordsIn = async (path: string) =>
  (await host.run('cat', path))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as ConnectionRecord);
const join1 = `await join(options(1)); say(await network.readEntryOf(options(1).runtimeDir, options(1).vmId));`;
const leave1 = `await network.leaveNetwork(options(1).runtimeDir, options(1).vmId);`;

it('root’s VMs and those of a user on lent taps have their records at the same time, each its own', async () => {
  for (const uid of [ROOT, USER]) {
    const [entry] = (await lending.as(uid, join1)) as [
      { network: VmNetwork; logPath: string; loan?: { logPath: string } },
    ];
    const guest = await Guest.start(uid, entry.network);
    guests.push({ guest, uid, path: entry.loan?.logPath ?? entry.logPath });
  }
  // tcpdump needs a while before it listens; what comes before that is nowhere.
  await vi.waitFor(async () => {
    for (const { guest } of guests) await guest.send();
    for (const { guest, path } of guests) {
      const records = await recordsIn(path);
      for (const one of guest.records) expect(records).toContainEqual(expect.objectContaining(one));
    }
  }, LOOK);
  for (const { guest, path } of guests) {
    for (const record of await recordsIn(path)) {
      const own = guest.records.map((one) => expect.objectContaining(one) as ConnectionRecord);
      expect(own).toContainEqual(record);
    }
  }
  const said = await readFile(join(lending.dir, '0/network/service.log'), 'utf8');
  expect(said + (await host.run('cat', '/run/qmp-agent-taps/service.log'))).not.toContain(
    'tcpdump',
  );
  await leaveAll();
});
