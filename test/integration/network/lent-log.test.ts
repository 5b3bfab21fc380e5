/** Records of VMs on lent taps, with real taps, rules, services and tcpdump; what QEMU would send is sent by a script. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { VmNetwork } from '../../../nft/index.ts';
import { LENT_DIR } from '../../../src/network/lent/lent-taps.ts';
import type { ConnectionRecord } from '../../../src/network/traffic/record.ts';
import { SCALE } from '../../scale.ts';
import { LendingHost } from './lending-host.ts';
import type { TestHost } from './test-host.ts';

/** Root, `nobody`, and another who has no name. */
const [ROOT, USER, OTHER] = [0, 65_534, 65_533];
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
  lending = await LendingHost.start([ROOT, USER, OTHER]);
  ({ host } = lending);
  await host.run('sh', '-ec', UPSTREAM);
  await host.module(`
    for (const uid of [${USER}, ${OTHER}]) await network.setUpNetwork({ taps: { count: 1, uid } });`);
});
afterAll(async () => {
  await leaveAll();
  await host.module(`await network.undoNetworkSetup();`);
  await vi.waitFor(async () => expect(await lending.services()).toBe(''), LOOK);
  await vi.waitFor(async () => expect(await lentFiles()).toEqual([]), LOOK);
  await lending[Symbol.asyncDispose]();
});

/** What is in the directory of the service that lends. */
const lentFiles = async () =>
  (await host.run('ls', LENT_DIR)).split('\n').filter((name) => name !== '');

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
    await lending.as(uid, leave(1));
  }
};
const recordsIn = async (path: string) =>
  (await host.run('cat', path))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as ConnectionRecord);
const joined = (n: number) =>
  `await join(options(${n})); say(await network.readEntryOf(options(${n}).runtimeDir, options(${n}).vmId));`;
const leave = (n: number) =>
  `await network.leaveNetwork(options(${n}).runtimeDir, options(${n}).vmId);`;

it('root’s VMs and those of a user on lent taps have their records at the same time, each its own', async () => {
  for (const uid of [ROOT, USER]) {
    const [entry] = (await lending.as(uid, joined(1))) as [
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
  expect(said + (await host.run('cat', `${LENT_DIR}/service.log`))).not.toContain('tcpdump');
  await leaveAll();
});

/** Something of a guest is on record: from now on all is. */
async function recorded(path: string, guest: Guest): Promise<void> {
  await vi.waitFor(async () => {
    await guest.send();
    expect((await recordsIn(path)).map(({ kind }) => kind)).toContain('connection');
  }, LOOK);
}

/** The service has looked at its taps: each look ends with the removal of logs that are nobody's, the first may have begun before. */
async function looked(): Promise<void> {
  for (let looks = 0; looks < 2; looks += 1) {
    await host.run('touch', `${LENT_DIR}/dd.log`);
    await vi.waitFor(async () => expect(await lentFiles()).not.toContain('dd.log'), LOOK);
  }
}

/** For the shell: whether a tap is up. */
const IS_UP = `is_up() { read -r flags <"/sys/class/net/$1/flags" && [ $((flags & 1)) = 1 ]; }`;

/** What the lender says to a user. */
const asked = (uid: number, request: object) =>
  lending.as(
    uid,
    `
    const { askLine } = await import('${join(import.meta.dirname, '../../../src/network/ask-line.ts')}');
    const o = { timeoutMs: 30_000, signal: undefined, maxChars: 65_536 };
    say(JSON.parse((await askLine('${LENT_DIR}/uid-${uid}.sock', ${JSON.stringify(JSON.stringify(request))}, o)).text));`,
  );

it('what is on record of a VM that has ended by itself is there until its user has copied it, and nobody else has it go', async () => {
  const [entry] = (await lending.as(USER, joined(2))) as [
    { network: VmNetwork; logPath: string; loan: { id: string; logPath: string } },
  ];
  const { id, logPath } = entry.loan;
  {
    await using guest = await Guest.start(USER, entry.network);
    await recorded(logPath, guest);
    await looked(); // it has been seen open
  }
  await vi.waitFor(async () => expect(await lentFiles()).not.toContain(`${id}.json`), LOOK);
  const files = [`${id}.ended`, `${id}.log`];
  expect(await lentFiles()).toEqual(expect.arrayContaining(files));
  for (const what of ['give', 'forget', 'renew'])
    expect(await asked(OTHER, { do: what, id })).toMatchObject([
      { refused: 'there is no such loan' },
    ]);
  await host.run('kill', '-9', (await lending.services()).trim());
  await vi.waitFor(async () => expect(await lending.services()).not.toBe(''), LOOK);
  const before = (await recordsIn(logPath)).length;
  // Its tap is free; of the next loan it has nothing.
  await lending.as(USER, `${joined(3)}${leave(3)}`);
  expect(await lentFiles()).toEqual(expect.arrayContaining(files));
  await lending.as(USER, leave(2));
  expect(await recordsIn(entry.logPath)).toHaveLength(before);
  expect((await lentFiles()).filter((name) => name.startsWith(id))).toEqual([]);
  expect(await asked(USER, { do: 'give', id })).toMatchObject([
    { refused: 'there is no such loan' },
  ]);
});

it('what a VM does up to its end is in its own log, also where tcpdump has no time just then', async () => {
  const COUNT = 200; // fewer than a VM may begin at once, and than the kernel keeps for tcpdump
  const [ready, stopped] = ['ready', 'stopped'].map((name) =>
    join(lending.dir, String(USER), name),
  );
  const ended = lending.as(
    USER,
    `
    const { spawn } = await import('node:child_process');
    const { once } = await import('node:events');
    const { existsSync, readFileSync, writeFileSync } = await import('node:fs');
    const { createInterface } = await import('node:readline');
    const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
    const vm = await join(options(4));
    const { loan } = await network.readEntryOf(options(4).runtimeDir, options(4).vmId);
    const sender = spawn('python3', ['${SENDER}', vm.tap], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: sender.stdout })[Symbol.asyncIterator]();
    const send = async (address, count) => {
      sender.stdin.write([vm.mac, vm.guestAddress, address, '443\\n'].join(' ').repeat(count));
      for (let n = 0; n < count; n += 1) await lines.next();
    };
    await lines.next();
    const isRecorded = () => existsSync(loan.logPath) && readFileSync(loan.logPath, 'utf8').includes('${STRANGER}');
    for (; !isRecorded(); await pause()) await send('${STRANGER}', 1);
    for (writeFileSync('${ready}', ''); !existsSync('${stopped}'); ) await pause();
    await send('${WEB}', ${COUNT});
    sender.kill('SIGKILL');
    await once(sender, 'exit');
    await network.leaveNetwork(options(4).runtimeDir, options(4).vmId);`,
  );
  await vi.waitFor(() => access(ready!), LOOK);
  const tcpdump = await lending.reader();
  // One process for all of it: once the rules are gone the service does not wait for long.
  await host.run(
    'sh',
    '-ec',
    `${IS_UP}
    kill -STOP ${tcpdump}
    touch ${stopped}
    while is_up qmpa1; do sleep 0.02; done
    while nft list chain inet qmp_agent out_qmpa1 >/dev/null 2>&1; do :; done
    sleep 0.1
    kill -CONT ${tcpdump}`,
  );
  await ended;
  const records = await recordsIn(join(lending.dir, String(USER), '4.jsonl'));
  expect(records.filter(({ to }) => to === WEB)).toHaveLength(COUNT);
});

it('of VMs that end at once all taps are shut before anybody waits for what they did', async () => {
  const users = [USER, OTHER];
  const loans: { id: string; tap: string }[] = [];
  const running: Guest[] = [];
  for (const uid of users) {
    const [entry] = (await lending.as(uid, joined(5))) as [
      { network: VmNetwork; loan: { id: string } },
    ];
    loans.push({ id: entry.loan.id, tap: entry.network.tap });
    running.push(await Guest.start(uid, entry.network));
  }
  await looked();
  const [service, tcpdump] = [(await lending.services()).trim(), await lending.reader()];
  await host.run('kill', '-STOP', tcpdump, service); // it cannot see one end before the other
  for (const guest of running) await guest[Symbol.asyncDispose]();
  const left = await host.run(
    'sh',
    '-ec',
    `${IS_UP}
    cd ${LENT_DIR}
    kill -CONT ${service}
    n=0
    while ${loans.map(({ tap }) => `is_up ${tap}`).join(' || ')}; do
      [ $((n += 1)) -lt 750 ]
      sleep 0.02
    done
    ls *.json
    kill -CONT ${tcpdump}`,
  );
  expect(left.trim().split('\n').sort()).toEqual(loans.map(({ id }) => `${id}.json`).sort());
  for (const uid of users) await lending.as(uid, leave(5));
});

it('of a tap that is given back while it is open all is in the VM’s own log when it is shut, and nowhere else', async () => {
  const [id] = await lending.as(
    USER,
    `
    const { spawn } = await import('node:child_process');
    const { once } = await import('node:events');
    const { readFile } = await import('node:fs/promises');
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const { runtimeDir, vmId } = options(6);
    const vm = await join(options(6));
    const { loan } = await network.readEntryOf(runtimeDir, vmId);
    const sender = spawn('python3', ['${SENDER}', vm.tap], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(sender.stdout, 'data');
    const isRecorded = async () => (await readFile(loan.logPath, 'utf8').catch(() => '')).includes('${WEB}');
    while (!(await isRecorded())) {
      sender.stdin.write([vm.mac, vm.guestAddress, '${WEB}', '443\\n'].join(' '));
      await pause(100);
    }
    const left = network.leaveNetwork(runtimeDir, vmId);
    await pause(300);
    sender.kill('SIGKILL');
    await left;
    say(loan.id);`,
  );
  expect((await lentFiles()).filter((name) => name.startsWith(id as string))).toEqual([]);
  const records = await recordsIn(join(lending.dir, String(USER), '6.jsonl'));
  expect(records).toContainEqual(expect.objectContaining({ to: WEB, toPort: 443 }));
});

it.each([
  ['is not there', [], ['give']],
  ['cannot', [{ refused: 'so', hint: '' }], ['give']],
  ['waits', [{ open: true }, { open: true }, { given: true }], ['give', 'give', 'give', 'forget']],
])(
  'where the lender %s, what is there is copied; it is told to forget only what is whole',
  async (_, replies, expected) => {
    const dir = join(lending.dir, String(ROOT));
    const [said, copy] = await host.module(`
      const { once } = await import('node:events');
      const { readFile, rm, writeFile } = await import('node:fs/promises');
      const { createServer } = await import('node:net');
      const { giveBack } = await import('${join(import.meta.dirname, '../../../src/network/lent/borrow.ts')}');
      const [replies, asked, logPath, own] = [${JSON.stringify(replies)}, [], '${dir}/loan.log', '${dir}/own.jsonl'];
      const lender = createServer((socket) => socket.once('data', (line) => {
        asked.push(JSON.parse(line).do);
        const reply = replies.shift();
        socket.end(reply === undefined ? '' : JSON.stringify(reply) + '\\n');
      })).listen('${LENT_DIR}/uid-${ROOT}.sock');
      await once(lender, 'listening');
      await rm(own, { force: true });
      await writeFile(logPath, 'x\\n');
      await giveBack({ id: '${'a'.repeat(32)}', logPath }, 'vm', own);
      lender.close();
      say(asked);
      say(await readFile(own, 'utf8'));`);
    expect([said, copy]).toEqual([expected, 'x\n']);
  },
);

it('of logs that nobody fetches the latest are kept, of each user as many', async () => {
  const ids = Array.from({ length: 70 }, (_, n) => (n + 256).toString(16));
  // A look may come at any time: a log without a note is nobody's, and a note has its time from the beginning.
  const made = (id: string, uid: number, minutes: number) =>
    `echo -n ${uid} >new; touch -d '-${minutes} min' new; mv new ${id}.ended; echo x >${id}.log`;
  const script = ids.map((id, n) => made(id, USER, n + 1));
  script.push(made('ff', OTHER, 90), made('ee', 12_345, 1));
  await host.run('sh', '-ec', `cd ${LENT_DIR}\n${script.join('\n')}`);
  const kept = [...ids.slice(0, 64), 'ff'].flatMap((id) => [`${id}.ended`, `${id}.log`]).sort();
  await vi.waitFor(
    async () =>
      expect(
        (await lentFiles()).filter((name) => /^[0-9a-f]+\.(ended|log)$/.test(name)).sort(),
      ).toEqual(kept),
    LOOK,
  );
});
