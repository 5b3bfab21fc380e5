"""
Holds a tap as QEMU does, and passes each frame on between it and the interface `eth0` that it makes in the network namespace
of a process: `TAP PID MAC`. So what is in there is the guest.
"""
import fcntl, os, select, struct, sys

TUNSETIFF = 0x400454CA
SIOCSIFHWADDR = 0x8924
IFF_TAP_NO_PI = 0x1002
ARPHRD_ETHER = 1
MAX_FRAME = 65_536


def tap(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    return tun


def enter(pid):
    import ctypes

    CLONE_NEWNET = 0x40000000
    with open(f"/proc/{pid}/ns/net") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


name, pid, mac = sys.argv[1:]
ours = tap(name)
enter(pid)
guests = tap("eth0")
fcntl.ioctl(guests, SIOCSIFHWADDR, struct.pack("16sH14s", b"eth0", ARPHRD_ETHER, bytes.fromhex(mac.replace(":", ""))))
print("up", flush=True)
while True:
    for one in select.select([ours, guests], [], [])[0]:
        other = guests if one is ours else ours
        try:
            os.write(other, os.read(one, MAX_FRAME))
        except OSError:
            pass  # it is down
