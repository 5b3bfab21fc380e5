import { describe, expect, it } from 'vitest';
import { judgeIsolation, type IsolationFacts } from '../../../src/doctor/isolation.ts';
import { judgeQemu, type QemuFacts } from '../../../src/doctor/qemu.ts';
import { judgeResources, type ResourceFacts } from '../../../src/doctor/resources.ts';
import {
  judgeConfig,
  judgeDirectory,
  judgeImage,
  type DirectoryFacts,
} from '../../../src/doctor/state.ts';
import { judgeTools } from '../../../src/doctor/tools.ts';
import type { Check } from '../../../src/doctor/types.ts';
import { judgeVirtualisation } from '../../../src/doctor/virtualisation.ts';

/** `id: status`, and the fix where there is one. */
const brief = (checks: Check[]): Record<string, string> =>
  Object.fromEntries(checks.map(({ id, status, fix }) => [id, fix ? `${status}: ${fix}` : status]));

const GIB = 1024 ** 3;

describe('virtualisation', () => {
  const intel = 'flags\t\t: fpu vmx sse\n';
  it('is fine where everything opens', () => {
    const facts = { cpuinfo: intel, kvm: undefined, vsock: undefined, tun: undefined };
    expect(Object.values(brief(judgeVirtualisation(facts)))).toEqual(['ok', 'ok', 'ok', 'ok']);
  });

  it('says what to do, by CPU and by error; and that VMs work all the same', () => {
    const facts = { cpuinfo: 'flags\t: svm\n', kvm: 'ENOENT', vsock: 'EACCES', tun: 'ENODEV' };
    const found = brief(judgeVirtualisation(facts));
    expect(found['cpu.virtualisation']).toBe('ok');
    expect(found['kvm.device']).toMatch(/^warn: modprobe kvm_amd/);
    expect(found['vsock.device']).toMatch(/^warn: usermod -aG kvm/);
    expect(found['tun.device']).toMatch(/^warn: modprobe tun/);
  });

  it('does not take svm_lock or avx512_vmx for the flag', () => {
    const facts = {
      cpuinfo: 'flags\t: svm_lock\n',
      kvm: undefined,
      vsock: undefined,
      tun: undefined,
    };
    expect(brief(judgeVirtualisation(facts))['cpu.virtualisation']).toMatch(/^warn/);
  });
});

describe('QEMU', () => {
  const facts: QemuFacts = {
    program: 'qemu-system-x86_64',
    path: '/usr/bin/qemu-system-x86_64',
    version: 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\n',
    machines:
      'Supported machines are:\nmicrovm              microvm (i386)\nq35                  Standard PC\n',
    help: '-sandbox on[,obsolete=allow|deny]\n',
    imgPath: '/usr/bin/qemu-img',
    ioUringObstacle: undefined,
  };
  it('is fine from 7.2 on', () => {
    expect(new Set(judgeQemu(facts).map(({ status }) => status))).toEqual(new Set(['ok']));
    expect(judgeQemu({ ...facts, version: 'QEMU emulator version 10.0.2' })[0]?.status).toBe('ok');
  });
  it.each([
    [{ path: undefined }, 'qemu.program', /apt install qemu-system-x86/],
    [{ version: 'QEMU emulator version 6.2.0' }, 'qemu.program', /Debian 12/],
    [{ version: undefined }, 'qemu.program', /qemu\.path/],
    [{ machines: 'pc  Standard\npc-q35-7.2  x\n' }, 'qemu.machine.q35', /apt install/],
    [{ help: '' }, 'qemu.sandbox', /apt install/],
    [{ imgPath: undefined }, 'qemu.img', /qemu-utils/],
  ])('fails with %j', (change, id, fix) => {
    const check = judgeQemu({ ...facts, ...change }).find((found) => found.id === id);
    expect(check?.status).toBe('fail');
    expect(check?.fix).toMatch(fix);
  });
  it('warns of disks without io_uring', () => {
    const ioUringObstacle = 'Unable to use io_uring: Operation not permitted';
    const check = judgeQemu({ ...facts, ioUringObstacle }).find(({ id }) => id === 'qemu.io_uring');
    expect(check?.status).toBe('warn');
    expect(check?.found).toContain(ioUringObstacle);
  });
});

describe('tools', () => {
  it('are needed as long as there is no image, and some always', () => {
    const none = new Map();
    expect(brief(judgeTools(none, false))).toMatchObject({
      'tool.setpriv': 'fail: apt install util-linux',
      'tool.mmdebstrap': 'fail: apt install mmdebstrap',
      'tool.nft': 'warn: apt install nftables',
    });
    expect(brief(judgeTools(none, true))['tool.mmdebstrap']).toMatch(/^warn/);
  });
});

describe('isolation', () => {
  const facts: IsolationFacts = {
    uid: 1000,
    user: 'u',
    maxUserNamespaces: '96365\n',
    unprivilegedClone: undefined,
    apparmorRestricted: undefined,
    subuid: 'u:100000:65536\n',
    cgroup: 'unified',
    controllers: 'cpu memory pids\n',
  };
  it.each([
    [{}, 'ok', 'ok'],
    [{ uid: 0, maxUserNamespaces: '0' }, 'ok', 'ok'],
    [{ maxUserNamespaces: '0\n' }, 'warn', 'ok'],
    [{ unprivilegedClone: '0\n' }, 'warn', 'ok'],
    [{ apparmorRestricted: '1\n' }, 'warn', 'ok'],
    [{ subuid: 'other:1:2\n' }, 'warn', 'ok'],
    [{ subuid: '1000:1:2\n' }, 'ok', 'ok'],
    [{ cgroup: 'hybrid' as const }, 'ok', 'warn'],
    [{ cgroup: 'none' as const }, 'ok', 'warn'],
  ])('%j: %s, %s', (change, userns, cgroup) => {
    const found = judgeIsolation({ ...facts, ...change }).map(({ status }) => status);
    expect(found).toEqual([userns, cgroup]);
  });
});

describe('resources', () => {
  const facts: ResourceFacts = {
    dataDir: '/d',
    freeBytes: 100 * GIB,
    availableBytes: 8 * GIB,
    vmMemoryMib: 1024,
    imageBuilt: false,
    node: 'v20.19.0',
  };
  it.each([
    [{}, ['ok', 'ok', 'ok']],
    [{ freeBytes: GIB / 2 }, ['fail', 'ok', 'ok']],
    [{ freeBytes: 3 * GIB }, ['warn', 'ok', 'ok']],
    [{ freeBytes: 3 * GIB, imageBuilt: true }, ['ok', 'ok', 'ok']],
    [{ availableBytes: GIB }, ['ok', 'warn', 'ok']],
    [{ node: 'v20.18.9' }, ['ok', 'ok', 'fail']],
    [{ node: 'v22.0.0' }, ['ok', 'ok', 'ok']],
    [{ freeBytes: undefined, availableBytes: undefined }, ['warn', 'warn', 'ok']],
  ])('%j: %j', (change, expected) => {
    expect(judgeResources({ ...facts, ...change }).map(({ status }) => status)).toEqual(expected);
  });
});

describe('state', () => {
  const facts: DirectoryFacts = {
    key: 'runtimeDir',
    path: '/run/qmp-agent',
    exists: true,
    at: '/run/qmp-agent',
    isDirectory: true,
    writable: true,
    ownerUid: 0,
    mode: 0o700,
    uid: 0,
  };
  it.each([
    [{}, 'ok'],
    [{ exists: false, at: '/run' }, 'ok'],
    [{ exists: false, at: '/run', writable: false }, 'fail'],
    [{ isDirectory: false }, 'fail'],
    [{ ownerUid: 1000 }, 'warn'],
    [{ mode: 0o777 }, 'fail'],
    [{ path: `/${'x'.repeat(81)}` }, 'fail'],
    [{ path: `/${'x'.repeat(80)}` }, 'ok'],
  ])('%j: %s', (change, status) => {
    expect(judgeDirectory({ ...facts, ...change }).status).toBe(status);
  });

  it('tells a missing image from a broken one', () => {
    expect(judgeImage('base', undefined).status).toBe('ok');
    expect(judgeImage('base', { code: 'ERR_NOT_FOUND', message: 'x' })).toMatchObject({
      status: 'warn',
      fix: 'qmp-agent image build',
    });
    expect(judgeImage('base', { code: 'ERR_IMAGE_CORRUPT', message: 'x' })).toMatchObject({
      status: 'fail',
      fix: 'qmp-agent image build --force',
    });
  });

  it('reports a wrong configuration with its hint', () => {
    expect(judgeConfig({ message: 'm', hint: 'h' })).toMatchObject({ status: 'fail', fix: 'h' });
  });
});
