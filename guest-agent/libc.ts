/**
 * The few calls of libc that Node does not offer, by ffi. The only module that imports ffi-rs, and
 * it does so on the first call: loading the native binary costs 10 ms on hardware and many times that
 * under emulation, and most runs of the agent's early life do without.
 *
 * Works from source, from `dist`, and inside the agent's bundle, where the native binary lies beside
 * the script.
 */
import type * as Ffi from 'ffi-rs';

/** `flock(2)` operations (sys/file.h). */
export const LOCK_EX = 2;
export const LOCK_NB = 4;

/** The host's CID as seen from a guest, `VMADDR_CID_HOST` (linux/vm_sockets.h). */
export const VMADDR_CID_HOST = 2;
/** Any CID, `VMADDR_CID_ANY`: what a listener binds to. */
export const VMADDR_CID_ANY = 0xffff_ffff;

const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const CLOEXEC = 0o2000000; // O_CLOEXEC and SOCK_CLOEXEC alike
const SO_VM_SOCKETS_CONNECT_TIMEOUT = 6; // linux/vm_sockets.h; a struct timeval
const AF_NETLINK = 16; // linux/netlink.h
const NETLINK_ROUTE = 0;
const SOCK_RAW = 3;
const MSG_DONTWAIT = 0x40;
const CLOCK_REALTIME = 0;
const RNDADDENTROPY = 0x4008_5203; // linux/random.h
const RNDRESEEDCRNG = 0x5207;
const F_SETPIPE_SZ = 1031; // linux/fcntl.h
const EXT4_IOC_RESIZE_FS = 0x4008_6610; // fs/ext4/ext4.h: _IOW('f', 16, __u64)
const MS_BIND = 4096; // linux/mount.h
const PROT_READ_WRITE = 3; // sys/mman.h
const MAP_SHARED = 1;

/** A libc call failed; `code` is the errno's name where it is one of those we tell apart. */
export class LibcError extends Error {
  readonly syscall: string;
  readonly errno: number;
  /** `EWOULDBLOCK`, `EADDRINUSE`, …, or `E<number>`. */
  readonly code: string;
  constructor(syscall: string, errno: number, text: string) {
    const code = ERRNO_NAMES[errno] ?? `E${errno}`;
    super(`${syscall}: ${code} (${text})`);
    this.name = 'LibcError';
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
  }
}

/** asm-generic/errno.h, x86-64. */
const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: 'EPERM',
  4: 'EINTR',
  9: 'EBADF',
  11: 'EWOULDBLOCK',
  12: 'ENOMEM',
  13: 'EACCES',
  16: 'EBUSY',
  19: 'ENODEV',
  22: 'EINVAL',
  24: 'EMFILE',
  28: 'ENOSPC',
  95: 'EOPNOTSUPP',
  97: 'EAFNOSUPPORT',
  98: 'EADDRINUSE',
  99: 'EADDRNOTAVAIL',
  101: 'ENETUNREACH',
  104: 'ECONNRESET',
  110: 'ETIMEDOUT',
  111: 'ECONNREFUSED',
};

/** The calls, once ffi-rs is loaded. */
export interface Libc {
  /**
   * Takes or gives back a lock that the kernel frees when its holder dies.
   * @throws LibcError `EWOULDBLOCK` where `LOCK_NB` was given and another process holds it
   */
  readonly flock: (fd: number, operation: number) => void;
  /** A pipe, close-on-exec on both ends; `sizeBytes` asks for a larger buffer where the kernel allows. */
  readonly pipe: (sizeBytes?: number) => { readFd: number; writeFd: number };
  /** A listening AF_VSOCK stream socket. */
  readonly listenVsock: (port: number, backlog: number) => number;
  /**
   * A connected AF_VSOCK stream socket. Runs in a thread of its own, so the event loop goes on.
   * @throws LibcError `ECONNRESET` (nobody listens), `ETIMEDOUT`, `ENODEV` (no such CID)
   */
  readonly connectVsock: (cid: number, port: number, timeoutMs: number) => Promise<number>;
  /** Peer of a connected AF_VSOCK socket. */
  readonly vsockPeer: (fd: number) => { cid: number; port: number };
  /** Sets the wall clock, ms since the epoch. */
  readonly setClock: (unixMs: number) => void;
  /** Mixes bytes into the kernel's pool, credits them, and reseeds the generator at once. */
  readonly addEntropy: (fd: number, bytes: Uint8Array) => void;
  /** Grows the mounted ext4 in which a descriptor is open, to so many of its blocks. In a thread of its own. */
  readonly growExt4: (fd: number, blocks: number) => Promise<void>;
  /** Lays one file over another: mount(2) with MS_BIND. */
  readonly bindMount: (source: string, target: string) => void;
  /** A socket of rtnetlink(7). The kernel answers before `send` returns. */
  readonly openRtnetlink: () => number;
  /** Sends a datagram. */
  readonly send: (fd: number, bytes: Buffer) => void;
  /** Receives a datagram that is there, and gives its length. @throws LibcError `EWOULDBLOCK` none is */
  readonly receive: (fd: number, into: Buffer) => number;
  readonly close: (fd: number) => void;
  /**
   * Maps a file into this process, to be written to by `/proc/self/mem`: for files that know no write(2).
   * @throws LibcError `ENOMEM` hugetlbfs has no pages for it
   */
  readonly mapShared: (fd: number, bytes: number) => { address: number; unmap: () => void };
}

let loaded: Promise<Libc> | undefined;

/** Loads ffi-rs on the first call. Rejects where this machine has no fitting native binary. */
export function libc(): Promise<Libc> {
  loaded ??= import('ffi-rs').then((module) => {
    // A CJS module: named exports are not always found by the ESM loader.
    const ffi = (module as unknown as { default?: typeof Ffi }).default ?? module;
    ffi.open({ library: LIBRARY, path: '' }); // the process itself, which has libc in it
    return bindings(ffi);
  });
  return loaded;
}

const LIBRARY = 'qmp-agent-libc';

interface Calls {
  call(this: void, name: string, ...values: (number | Buffer)[]): number;
  callInThread(this: void, name: string, ...values: (number | Buffer)[]): Promise<number>;
}

/** Calls by name: numbers are ints, buffers pointers, the result an int that is negative on failure. */
function caller(ffi: typeof Ffi): Calls {
  const { I32, I64, U8Array } = ffi.DataType;
  const params = (name: string, values: readonly (number | Buffer)[]) => ({
    library: LIBRARY,
    funcName: name,
    retType: I32 as Ffi.DataType.I32,
    paramsType: values.map((v) =>
      typeof v === 'number' ? (v > 0x7fff_ffff ? I64 : I32) : U8Array,
    ),
    paramsValue: [...values],
    errno: true as const,
  });
  const check = (name: string, r: { value: number; errnoCode: number; errnoMessage: string }) => {
    if (r.value < 0) throw new LibcError(name, r.errnoCode, r.errnoMessage);
    return r.value;
  };
  const call = (name: string, ...values: (number | Buffer)[]): number =>
    check(name, ffi.load<Ffi.DataType.I32, true>(params(name, values)));
  const callInThread = async (name: string, ...values: (number | Buffer)[]): Promise<number> =>
    check(
      name,
      await ffi.load<Ffi.DataType.I32, true, true>({
        ...params(name, values),
        runInNewThread: true,
      }),
    );
  return { call, callInThread };
}

function bindings(ffi: typeof Ffi): Libc {
  const { call, callInThread } = caller(ffi);
  /** Runs `use` on a fresh descriptor and closes it where that fails. */
  const guarded = <T>(fd: number, use: () => T): T => {
    try {
      return use();
    } catch (error) {
      call('close', fd);
      throw error;
    }
  };

  return {
    ...datagrams(call),
    flock: (fd, operation) => void call('flock', fd, operation),
    mapShared: (fd, bytes) => mapShared(ffi, call, fd, bytes),
    close: (fd) => void call('close', fd),
    async growExt4(fd, blocks) {
      const count = Buffer.alloc(8);
      count.writeBigUInt64LE(BigInt(blocks));
      await callInThread('ioctl', fd, EXT4_IOC_RESIZE_FS, count);
    },
    bindMount(source, target) {
      const none = cString('');
      call('mount', cString(source), cString(target), none, MS_BIND, none);
    },
    pipe(sizeBytes) {
      const fds = Buffer.alloc(8);
      call('pipe2', fds, CLOEXEC);
      const pair = { readFd: fds.readInt32LE(0), writeFd: fds.readInt32LE(4) };
      if (sizeBytes !== undefined) {
        // Beyond /proc/sys/fs/pipe-max-size or the user's soft limit this fails, and 64 KiB serve too.
        try {
          call('fcntl', pair.readFd, F_SETPIPE_SZ, sizeBytes);
        } catch {
          // it keeps its default
        }
      }
      return pair;
    },
    listenVsock(port, backlog) {
      const fd = call('socket', AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | CLOEXEC, 0);
      return guarded(fd, () => {
        const address = sockaddrVm(VMADDR_CID_ANY, port);
        call('bind', fd, address, address.length);
        call('listen', fd, backlog);
        return fd;
      });
    },
    async connectVsock(cid, port, timeoutMs) {
      const fd = call('socket', AF_VSOCK, SOCK_STREAM | CLOEXEC, 0);
      try {
        const address = sockaddrVm(cid, port);
        const timeout = timeval(timeoutMs);
        call('setsockopt', fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, timeout, timeout.length);
        await callInThread('connect', fd, address, address.length);
        return fd;
      } catch (error) {
        call('close', fd);
        throw error;
      }
    },
    vsockPeer(fd) {
      const address = sockaddrVm(0, 0);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(address.length);
      call('getpeername', fd, address, length);
      return { port: address.readUInt32LE(4), cid: address.readUInt32LE(8) };
    },
    setClock(unixMs) {
      const timespec = Buffer.alloc(16);
      timespec.writeBigInt64LE(BigInt(Math.floor(unixMs / 1000)), 0);
      timespec.writeBigInt64LE(BigInt(Math.floor((unixMs % 1000) * 1e6)), 8);
      call('clock_settime', CLOCK_REALTIME, timespec);
    },
    addEntropy: (fd, bytes) => addEntropy(call, fd, bytes),
  };
}

function addEntropy(call: Calls['call'], fd: number, bytes: Uint8Array): void {
  const pool = Buffer.alloc(8 + bytes.length); // struct rand_pool_info: bits, bytes, data
  pool.writeInt32LE(bytes.length * 8, 0);
  pool.writeInt32LE(bytes.length, 4);
  pool.set(bytes, 8);
  call('ioctl', fd, RNDADDENTROPY, pool);
  call('ioctl', fd, RNDRESEEDCRNG, 0);
}

function datagrams(call: Calls['call']): Pick<Libc, 'openRtnetlink' | 'send' | 'receive'> {
  return {
    openRtnetlink: () => call('socket', AF_NETLINK, SOCK_RAW | CLOEXEC, NETLINK_ROUTE),
    send: (fd, bytes) => void call('send', fd, bytes, bytes.length, 0),
    receive: (fd, into) => call('recv', fd, into, into.length, MSG_DONTWAIT),
  };
}

/** The result of mmap(2) is an address, and −1 on failure. */
function mapShared(ffi: typeof Ffi, call: Calls['call'], fd: number, bytes: number) {
  const { I32, I64 } = ffi.DataType;
  const result = ffi.load<Ffi.DataType.I64, true>({
    library: LIBRARY,
    funcName: 'mmap',
    retType: I64,
    paramsType: [I64, I64, I32, I32, I32, I64],
    paramsValue: [0, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0],
    errno: true,
  });
  const address = Number(result.value);
  if (address === -1) throw new LibcError('mmap', result.errnoCode, result.errnoMessage);
  return { address, unmap: () => void call('munmap', address, bytes) };
}

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** `struct sockaddr_vm`: family u16, reserved u16, port u32, cid u32, flags u8, 3 zero bytes. */
function sockaddrVm(cid: number, port: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_VSOCK, 0);
  address.writeUInt32LE(port >>> 0, 4);
  address.writeUInt32LE(cid >>> 0, 8);
  return address;
}

function timeval(ms: number): Buffer {
  const time = Buffer.alloc(16);
  time.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0);
  time.writeBigInt64LE(BigInt(Math.floor((ms % 1000) * 1000)), 8);
  return time;
}
