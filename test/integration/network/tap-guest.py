"""Holds a tap as QEMU does. A line on stdin, `COUNT SIZE`, has it send so many frames of so many bytes."""
import fcntl, os, struct, sys

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TAP_NO_PI))
print("up", flush=True)
for line in sys.stdin:
    count, size = map(int, line.split())
    # From a MAC address that is not the VM's to one that is nobody's: no rule lets that through.
    head = bytes.fromhex("02ee00000009" "02ee00000008" "0800") + b"SPOOFED"
    frame = head.ljust(size, b"x")
    for _ in range(count):
        os.write(tun, frame)
    print("sent", flush=True)
