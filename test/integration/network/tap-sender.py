"""
Holds a tap as QEMU does. A line on stdin, `MAC SOURCE DESTINATION PORT TEXT`, has it send a datagram by UDP, IPv4 or IPv6;
without TEXT, the first segment of another TCP connection.
"""
import fcntl, itertools, os, random, socket, struct, sys

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
GATEWAY = bytes.fromhex("02716d706101")
TCP = 6
UDP = 17
SYN = 0x5002
own_ports = itertools.count(random.randrange(1024, 50_000))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(mac, source, destination, port, text):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if text is None:
        protocol, sum_at, length = TCP, 16, 20
        datagram = struct.pack("!HHIIHHHH", next(own_ports), port, 1, 0, SYN, 1024, 0, 0)
    else:
        protocol, sum_at, length = UDP, 6, 8 + len(text)
        datagram = struct.pack("!HHHH", 4242, port, length, 0) + text
    if family == socket.AF_INET:
        pseudo = ends + struct.pack("!BBH", 0, protocol, length)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, protocol, 0)
        head += ends
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        ether_type = b"\x08\x00"
    else:
        pseudo = ends + struct.pack("!II", length, protocol)
        head = struct.pack("!IHBB", 6 << 28, length, protocol, 64) + ends
        ether_type = b"\x86\xdd"
    datagram = datagram[:sum_at] + struct.pack("!H", checksum(pseudo + datagram)) + datagram[sum_at + 2 :]
    return GATEWAY + bytes.fromhex(mac.replace(":", "")) + ether_type + head + datagram


tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TAP_NO_PI))
print("up", flush=True)
for line in sys.stdin:
    mac, source, destination, port, *text = line.split()
    os.write(tun, frame(mac, source, destination, int(port), text[0].encode() if text else None))
    print("sent", flush=True)
