"""
One end of a network, driven by a test: runs in a network namespace or a guest, takes one JSON request a line on stdin and
answers each with a line. Sockets as programs use them, raw frames, a sniffer, and a reader of nflog.
"""

import errno
import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time

MAX_KEPT = 10_000  # frames or log entries that wait to be taken

sockets = {}
kept = {}


def name_of(error):
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno, str(error))


def attempt(action):
    """Errors are what these tests are about: they are answers, by name."""
    try:
        return action() or "ok"
    except OSError as error:
        return name_of(error)


# --- sockets


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp_connect(r):
    sock = socket.socket(family(r["to"]), socket.SOCK_STREAM)
    sock.settimeout(r.get("timeoutS", 5))

    def open_it():
        if "from" in r:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(tuple(r["from"]))
        sock.connect((r["to"], r["port"]))

    result = attempt(open_it)
    if result == "ok" and "id" in r:
        sockets[r["id"]] = sock
    else:
        sock.close()
    return result


def say(r):
    """Sends on an open connection and waits for the echo."""
    sock = sockets[r["id"]]
    sock.settimeout(r.get("timeoutS", 5))

    def exchange():
        sock.sendall(r.get("text", "hello").encode())
        return "echo" if sock.recv(100) else "closed"

    return attempt(exchange)


def receive(r):
    sock = sockets[r["id"]]
    sock.settimeout(r.get("timeoutS", 5))
    return attempt(lambda: sock.recv(65536).decode("latin1") or "closed")


def tell(r):
    """Sends from a listener's side on the connection that it accepted last."""
    return attempt(lambda: accepted[r["port"]].sendall(r["text"].encode()))


def close(r):
    """With a reset: nothing of it comes later."""
    sock = sockets.pop(r["id"])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def bulk(r):
    """Sends for some time as fast as it can; bytes that went out."""
    sock = sockets[r["id"]]
    sock.settimeout(0.5)
    sent, end, block = 0, time.monotonic() + r["seconds"], b"x" * 65536
    while time.monotonic() < end:
        try:
            sent += sock.send(block)
        except TimeoutError:
            pass
    return sent


def udp(r):
    with socket.socket(family(r["to"]), socket.SOCK_DGRAM) as sock:
        sock.settimeout(r.get("timeoutS", 5))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

        def exchange():
            if "from" in r:
                sock.bind(tuple(r["from"]))
            sock.connect((r["to"], r["port"]))
            sock.send(r.get("text", "hello").encode())
            return "echo" if sock.recv(2000) else "closed"

        return attempt(exchange)


def ask(r):
    """One packet of DNS, by UDP or TCP, each as hex; or the name of an error."""
    packet, end = bytes.fromhex(r["hex"]), (r["to"], r.get("port", 53))
    kind = socket.SOCK_STREAM if r.get("tcp") else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(r.get("timeoutS", 5))

        def exchange():
            sock.connect(end)
            if not r.get("tcp"):
                sock.send(packet)
                return sock.recv(4096).hex()
            sock.sendall(struct.pack("!H", len(packet)) + packet)
            data = b""
            while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                more = sock.recv(4096)
                if not more:
                    return "closed"
                data += more
            return data[2:].hex()

        return attempt(exchange)


def join(r):
    """Of a group of multicast: the kernel says so to all routers (IGMP)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(r["group"]) + socket.inet_aton(r["from"]))
    sockets[r["group"]] = sock


def udp_many(r):
    """Datagrams in a row; how many were echoed within the time."""
    with socket.socket(family(r["to"]), socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect((r["to"], r["port"]))
        for _ in range(r["count"]):
            attempt(lambda: sock.send(b"hello"))
        echoes = 0
        for _ in range(r["count"] * 2):
            result = attempt(lambda: sock.recv(100) and "echo")
            if result == "timeout":
                break
            echoes += result == "echo"
        return echoes


def ping(r):
    if ":" in r["to"]:
        return ping6(r)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(r.get("timeoutS", 5))
        body = struct.pack("!BBHHH", 8, 0, 0, 77, r.get("seq", 1)) + b"ping"
        total = sum(struct.unpack(f"!{len(body) // 2}H", body))
        total = (total & 0xFFFF) + (total >> 16)
        body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]

        def exchange():
            sock.sendto(body, (r["to"], 0))
            while True:
                packet = sock.recv(1500)
                kind, code = packet[20], packet[21]
                if kind == 0:
                    return "echo"
                if kind == 3:
                    return f"unreachable {code}"

        return attempt(exchange)


def ping6(r):
    """The kernel writes the checksum, and gives what comes without its IP header."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.settimeout(r.get("timeoutS", 5))

        def exchange():
            sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 77, r.get("seq", 1)) + b"ping", (r["to"], 0))
            while True:
                packet = sock.recv(1500)
                if packet[0] == 129:
                    return "echo"
                if packet[0] == 1:
                    return f"unreachable {packet[1]}"

        return attempt(exchange)


def run(r):
    """A line of shell; what it wrote."""
    return subprocess.run(["sh", "-ec", r["line"]], check=True, capture_output=True, text=True).stdout


accepted = {}


def listen(r):
    """Echoes on TCP and UDP ports of all addresses of IPv4, or of IPv6 (`::`), or of one."""
    address = r.get("address", "0.0.0.0")
    for port in r.get("tcp", []):
        server = socket.socket(family(address), socket.SOCK_STREAM)
        only_own_family(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(256)
        start(serve_tcp, server, port)
    for port in r.get("udp", []):
        sock = socket.socket(family(address), socket.SOCK_DGRAM)
        only_own_family(sock)
        # The answer has to come from the address that was asked.
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        sock.bind((address, port))
        start(serve_udp, sock)


def only_own_family(sock):
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def serve_tcp(server, port):
    while True:
        conn, _ = server.accept()
        accepted[port] = conn
        start(echo, conn)


def echo(conn):
    try:
        with conn:
            while data := conn.recv(65536):
                if len(data) < 1000:
                    conn.sendall(data)
    except OSError:
        pass


def serve_udp(sock):
    while True:
        try:
            data, control, _, sender = sock.recvmsg(2000, 100)
            sock.sendmsg([data], control, 0, sender)
        except OSError:
            pass


# --- flows: as fast as it goes, for as long as the peer lives

flows = {}


def flow_listen(r):
    """Whoever connects says by one byte whether to be sent something, or counted."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", r["port"]))
    server.listen(16)
    start(flow_accept, server)


def flow_accept(server):
    while True:
        conn, _ = server.accept()
        if conn.recv(1) == b"d":
            start(pour, conn)
        else:
            start(drain, conn, "served")


def flow(r):
    sock = socket.create_connection((r["to"], r["port"]), timeout=5)
    sock.settimeout(None)
    sockets[r["id"]] = sock
    down = r["way"] == "down"
    sock.sendall(b"d" if down else b"u")
    start(*((drain, sock, r["id"]) if down else (pour, sock)))


def pour(sock):
    try:
        while True:
            sock.sendall(b"x" * 65536)
    except OSError:
        pass


def drain(sock, name):
    flows[name] = 0
    try:
        while data := sock.recv(1 << 20):
            flows[name] += len(data)
    except OSError:
        pass


def flowed(r):
    """Bytes per second that came within some time; whoever sends may not be accepted yet."""
    late = time.monotonic() + 5
    while r["id"] not in flows and time.monotonic() < late:
        time.sleep(0.01)
    before, began = flows[r["id"]], time.monotonic()
    time.sleep(r["seconds"])
    return (flows[r["id"]] - before) / (time.monotonic() - began)


# --- frames and logs


def start(target, *args):
    threading.Thread(target=target, args=args, daemon=True).start()


def frame(r):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((r["dev"], 0))
        for text in r["frames"]:
            sock.send(bytes.fromhex(text))


def sniff(r):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    sock.bind((r["dev"], 0))
    kept[r["id"]] = inbox = queue.Queue(MAX_KEPT)
    start(collect, sock, inbox)


def collect(sock, inbox):
    while True:
        data, address = sock.recvfrom(65536)
        if address[2] == 4:  # PACKET_OUTGOING
            continue
        put(inbox, data[:200].hex())


def put(inbox, entry):
    try:
        inbox.put_nowait(entry)
    except queue.Full:
        pass


def take(r):
    """All that is there; waits for the first, where asked to, and a little for those right behind."""
    inbox, found = kept[r["id"]], []
    wait = r.get("waitS", 0)
    try:
        if wait:
            found.append(inbox.get(timeout=wait))
        while True:
            found.append(inbox.get(timeout=0.02))
    except queue.Empty:
        return found


def nflog(r):
    """Binds to a group of nfnetlink_log (linux/netfilter/nfnetlink_log.h)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    sock.bind((0, 0))
    group = r["group"]
    for command in (attribute(1, b"\1"), attribute(2, struct.pack("!IBB", 0xFFFF, 2, 0))):
        body = struct.pack("!BBH", 0, 0, group) + command
        sock.send(struct.pack("=IHHII", 16 + len(body), 0x401, 5, 1, 0) + body)
        code = struct.unpack_from("=i", sock.recv(1000), 16)[0]
        if code != 0:
            return errno.errorcode[-code]
    kept[r["id"]] = inbox = queue.Queue(MAX_KEPT)
    start(read_log, sock, inbox)
    return "ok"


def attribute(kind, data):
    padded = data + b"\0" * (-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind) + padded


def read_log(sock, inbox):
    while True:
        try:
            data = sock.recv(1 << 17)
        except OSError:  # ENOBUFS: more than fits, and lost
            continue
        at = 0
        while at + 16 <= len(data):
            size, kind = struct.unpack_from("=IH", data, at)
            if kind == 0x400:
                put(inbox, log_entry(data[at + 20 : at + size]))
            at += (size + 3) & ~3


def log_entry(data):
    entry, at = {"prefix": "", "mark": 0, "in": "", "out": ""}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        value, kind = data[at + 4 : at + size], kind & 0x7FFF
        if kind == 10:
            entry["prefix"] = value.rstrip(b"\0").decode()
        elif kind == 2:
            entry["mark"] = struct.unpack("!I", value)[0]
        elif kind in (4, 5):
            index = struct.unpack("!I", value)[0]
            entry["in" if kind == 4 else "out"] = interface(index)
        elif kind == 9:
            entry["payload"] = value.hex()
        at += (size + 3) & ~3
    return entry


def interface(index):
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


COMMANDS = {
    f.__name__: f
    for f in (tcp_connect, say, receive, tell, close, bulk, udp, udp_many, ask, join, ping, run, listen, flow_listen, flow, flowed, frame, sniff, take, nflog)
}

print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(COMMANDS[request["do"]](request)), flush=True)
