"""
Runs in a guest as root: sends without an end what no policy of the test allows, from the first moment on, whether its
interface has an address or not: then as who the argument says. One of them, honest in all but its port, is what a policy may open.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time

DEV = "eth0"
WEB, LAN = "203.0.113.10", "10.1.2.3"
GATEWAY_MAC = bytes.fromhex("02716d706101")
TEXT = b"FLOOD"
known = [sys.argv[1]]


def mac():
    with open(f"/sys/class/net/{DEV}/address") as file:
        return bytes.fromhex(file.read().strip().replace(":", ""))


def address():
    """What it has, or had when it was last up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            reply = fcntl.ioctl(sock, 0x8915, struct.pack("256s", DEV.encode()))  # SIOCGIFADDR
            known[0] = socket.inet_ntoa(reply[20:24])
        except OSError:
            pass
        return known[0]


def ipv4(source, destination):
    udp = struct.pack("!HHHH", 4000, 443, 8 + len(TEXT), 0) + TEXT
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + udp


def frames():
    own, me = mac(), address()
    ip6 = struct.pack("!IHBB", 6 << 28, 8 + len(TEXT), 17, 64) + bytes.fromhex("20010db8" + "00" * 11 + "02") * 2
    ip6 += struct.pack("!HHHH", 4000, 443, 8 + len(TEXT), 0) + TEXT
    to = GATEWAY_MAC + own
    return [
        to + b"\x08\x00" + ipv4(me, WEB),
        to + b"\x08\x00" + ipv4(me, LAN),
        to + b"\x08\x00" + ipv4("203.0.113.77", WEB),
        GATEWAY_MAC + bytes.fromhex("02bb00000009") + b"\x08\x00" + ipv4(me, WEB),
        to + b"\x81\x00\x00\x00\x08\x00" + ipv4(me, WEB),
        to + b"\x86\xdd" + ip6,
    ]


while not os.path.exists(f"/sys/class/net/{DEV}"):
    time.sleep(0.01)
subprocess.run(["ip", "link", "set", DEV, "up"])
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind((DEV, 0))
    while True:
        for frame in frames():
            try:
                sock.send(frame)
            except OSError:  # the interface is down
                pass
        time.sleep(0.002)
