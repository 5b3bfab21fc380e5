"""Holds a tap as QEMU does. A line on stdin, a frame as hex, has it sent."""
import fcntl, os, struct, sys

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TAP_NO_PI))
print("up", flush=True)
for line in sys.stdin:
    os.write(tun, bytes.fromhex(line))
    print("sent", flush=True)
