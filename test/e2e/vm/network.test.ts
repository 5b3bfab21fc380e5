/** The network of real guests: modes that need no tap. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve4 } from 'node:dns/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTemplate } from '../../../src/vm/template/create.ts';
import { TemplateStore } from '../../../src/vm/template/store.ts';
import type { MachineType, VmCloneOptions } from '../../../src/vm/api.ts';
import { Vm } from '../../../src/vm/vm.ts';
import { macOf } from '../../../src/network/nic.ts';
import { SCALE } from '../../scale.ts';
import { BOOT_MS, useTestState } from './state.ts';

/** Any name that a host with a resolver finds. */
const NAME = 'debian.org';
/** Until what the host listens to has seen a guest come by. */
const FETCH_S = 5 * SCALE;
/** Notes again and again which boot it is in, and its MAC address: runs in the template, and on in each clone. */
const WITNESS =
  'nohup sh -c \'while :; do echo "$(cat /proc/sys/kernel/random/boot_id) $(cat /sys/class/net/eth0/address)"; sleep 0.05; done\' > /tmp/witness 2>&1 &';

const state = useTestState();
const asked: string[] = [];
let server: Server;
let port: number;

beforeAll(async () => {
  server = createServer(({ url = '' }, response) => {
    asked.push(url);
    response.end('the host');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  ({ port } = server.address() as AddressInfo);
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const out = async (vm: Vm, command: string): Promise<string> =>
  (await vm.commands.run(command, { user: 'root' })).stdout.trim();

/** What there is of the network in the guest. */
async function networkIn(vm: Vm) {
  const [link = '', addresses = '', routes = '', ipv6 = '', resolv = ''] = (
    await out(
      vm,
      'ip -brief link show dev eth0; echo %; ip -4 -brief address show dev eth0; echo %; ip route; echo %; ip -6 address show dev eth0; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; echo %; cat /etc/resolv.conf',
    )
  ).split('%\n');
  const mac = /(?:[0-9a-f]{2}:){5}[0-9a-f]{2}/.exec(link)?.[0];
  // Whether it is up and has a carrier; its `operstate` follows within a second.
  const isUp = link.includes('LOWER_UP');
  const address = /(\S+\/\d+)/.exec(addresses)?.[1];
  return { isUp, mac, address, routes: routes.trim(), ipv6: ipv6.trim(), resolv };
}

async function expectUserNetwork(vm: Vm): Promise<void> {
  const { mac } = await vm.info();
  expect(await networkIn(vm)).toEqual({
    isUp: true,
    mac,
    address: '10.0.2.15/24',
    routes:
      'default via 10.0.2.2 dev eth0 proto static onlink \n10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15',
    ipv6: '1', // switched off, and no address
    resolv: '# Written by qmp-agent.\nnameserver 10.0.2.3',
  });
  const path = `/from-${vm.id}`;
  expect(await out(vm, `curl -sS -m ${FETCH_S} http://10.0.2.2:${port}${path}`)).toBe('the host');
  expect(asked).toContain(path);
}

async function expectIsolated(vm: Vm): Promise<void> {
  const { isUp, address, routes } = await networkIn(vm);
  expect({ isUp, address, routes }).toEqual({
    isUp: false,
    address: undefined,
    routes: '',
  });
  const fetched = await vm.commands.run(`curl -sS -m 2 http://10.0.2.2:${port}/isolated || true`);
  expect(fetched.stderr).toMatch(/onnect/);
  expect(asked).not.toContain('/isolated');
}

describe.each<MachineType>(['q35', 'microvm'])(
  'on %s, a template with the user network',
  (machine) => {
    const name = `net-${machine}`;
    const clone = (o: VmCloneOptions = {}) =>
      Vm.fromTemplate(name, { paths: state.paths, timeoutMs: BOOT_MS, ...o });

    beforeAll(async () => {
      await createTemplate(name, {
        ...{ paths: state.paths, timeoutMs: BOOT_MS, memoryMib: 512, machine, network: 'user' },
        // In the template itself, too: it has booted.
        provision: `curl -sS -m ${FETCH_S} http://10.0.2.2:${port}/provision`,
        warm: WITNESS,
      });
    });
    afterAll(() => new TemplateStore(state.paths).remove(name));

    it('had it while it was provisioned', () => {
      expect(asked).toContain('/provision');
    });

    it('gives it to its clones, each with a MAC address of its own', async () => {
      await using one = await clone();
      await using other = await clone();
      for (const vm of [one, other]) await expectUserNetwork(vm);
      expect((await one.info()).mac).not.toBe((await other.info()).mac);
      // What went on from the template met the network as it is now, and never as it was.
      const { mac } = await one.info();
      const bootId = await out(one, 'cat /proc/sys/kernel/random/boot_id');
      const notes = (await out(one, 'cat /tmp/witness')).split('\n').map((line) => line.split(' '));
      const own = notes.filter(([id]) => id === bootId);
      expect(new Set(own.map(([, seen]) => seen))).toEqual(new Set([mac]));
      expect(notes.some(([id, seen]) => id !== bootId && seen !== mac)).toBe(true); // it did run there
    });

    it('can have clones without, too', async () => {
      await using vm = await clone({ network: 'isolated' });
      expect((await vm.info()).network).toBe('isolated');
      await expectIsolated(vm);
      // It has its template's, which nobody else has to know.
      expect(await out(vm, 'cat /sys/class/net/eth0/address')).not.toBe(macOf(vm.id));
      expect((await vm.info()).mac).toBeUndefined();
    });

    it('looks names up where the host can', async ({ skip }) => {
      const addresses = await resolve4(NAME).catch(() => skip('the host has no resolver'));
      await using vm = await clone();
      expect(addresses).toContain((await out(vm, `getent ahostsv4 ${NAME}`)).split(/\s/)[0]);
    });

    // Seen twice in some twenty runs, before the device's own announcement was turned off: a guest that hung
    // right after it was resumed. Whether that was the cause is not proven yet.
    it('has it anew after a restore, a fork, and a suspend', { retry: 2 }, async () => {
      const vm = await clone({ persistent: true });
      try {
        await vm.snapshots.create('one');
        await out(vm, 'ip address flush dev eth0; ip link set dev eth0 down; : >/etc/resolv.conf');
        await vm.snapshots.restore('one');
        await expectUserNetwork(vm);
        const [child] = await vm.fork();
        if (child === undefined) throw new Error('no child');
        try {
          await expectUserNetwork(child);
        } finally {
          await child.close();
        }
        await expectUserNetwork(vm);
        await vm.suspend();
        await vm.resume();
        await expectUserNetwork(vm);
      } finally {
        await vm.remove({ force: true });
        await vm.close();
      }
    });
  },
);

describe('an isolated VM', () => {
  it('has a device, and no way out; its template can have clones with a network', async () => {
    const name = 'net-isolated';
    const options = { paths: state.paths, timeoutMs: BOOT_MS };
    await createTemplate(name, { ...options, memoryMib: 512 });
    try {
      await using vm = await Vm.fromTemplate(name, options);
      expect((await vm.info()).network).toBe('isolated');
      await expectIsolated(vm);
      await using other = await Vm.fromTemplate(name, { ...options, network: 'user' });
      await expectUserNetwork(other);
    } finally {
      await new TemplateStore(state.paths).remove(name);
    }
  });
});
