"""Holds a tap as QEMU does. A line on stdin, a frame as hex and how often (default: once), has it sent."""
import fcntl, os, struct, sys

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TAP_NO_PI))
print("up", flush=True)
for line in sys.stdin:
    text, *count = line.split()
    frame = bytes.fromhex(text)
    for _ in range(int(count[0]) if count else 1):
        os.write(tun, frame)
    print("sent", flush=True)
