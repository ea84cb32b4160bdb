"""What a capture shows to who reads along: nothing but QUIC and TLS 1.3, and nowhere what was sent.

Files are classic pcap of a TUN device (raw IPv4). TLS is judged here, from whole TCP streams put together; QUIC by tshark, which follows connections."""
import collections
import struct
import subprocess

# TLS records (RFC 8446, section 5.1) and how long one may be (section 5.2).
RECORD_TYPES, RECORD_BYTES_MAX = {20, 21, 22, 23}, (1 << 14) + 256
SERVER_HELLO, SUPPORTED_VERSIONS, TLS_1_3 = 2, 43, 0x0304
TCP, UDP = 6, 17


def packets(path):
    """(protocol, source, destination, payload of IP) of each packet of a file; source and destination with ports."""
    data = open(path, "rb").read()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHIIII", data)
    if magic not in (0xA1B2C3D4, 0xA1B23C4D) or link not in (101, 228, 12):
        raise ValueError(f"{path} is no capture of a TUN device: magic {magic:x}, link type {link}")
    at = 24
    while at + 16 <= len(data):
        _, _, kept, whole = struct.unpack_from("<IIII", data, at)
        if kept != whole:
            raise ValueError(f"{path} has packets that were cut")
        packet = data[at + 16:at + 16 + kept]
        at += 16 + kept
        header = (packet[0] & 15) * 4
        protocol, payload = packet[9], packet[header:struct.unpack_from(">H", packet, 2)[0]]
        ports = struct.unpack_from(">HH", payload) if protocol in (TCP, UDP) else (0, 0)
        yield protocol, (packet[12:16], ports[0]), (packet[16:20], ports[1]), payload


def streams(segments):
    """Each direction of each TCP connection, put together: {(source, destination, first number): bytes}."""
    parts, began = collections.defaultdict(dict), {}
    for source, destination, payload in segments:
        number, = struct.unpack_from(">I", payload, 4)
        key = source, destination
        if payload[13] & 2:
            began[key] = (number + 1) & 0xFFFFFFFF
        text = payload[(payload[12] >> 4) * 4:]
        if text and key in began:
            first = began[key]
            offset = (number - first) & 0xFFFFFFFF
            if len(text) > len(parts[key, first].get(offset, b"")):
                parts[key, first][offset] = text
    whole = {}
    for key, pieces in parts.items():
        stream = bytearray()
        for offset in sorted(pieces):
            if offset > len(stream):
                break  # what was lost and not sent again before the end
            stream[offset:offset + len(pieces[offset])] = pieces[offset]
        whole[key] = bytes(stream)
    return whole


def is_tls_1_3(stream):
    """Whether a stream is TLS records to its end (the last may be cut); for a server's stream also that it chose TLS 1.3."""
    at, first = 0, True
    while at + 5 <= len(stream):
        kind, version, length = struct.unpack_from(">BHH", stream, at)
        if kind not in RECORD_TYPES or version not in (0x0301, 0x0303) or length > RECORD_BYTES_MAX:
            return False
        if first and kind == 22 and stream[at + 5] == SERVER_HELLO and chosen(stream[at + 9:at + 5 + length]) != TLS_1_3:
            return False
        at, first = at + 5 + length, False
    return True


def chosen(hello):
    """The version that a ServerHello chooses (RFC 8446, section 4.1.3)."""
    at = 2 + 32
    at += 1 + hello[at] + 2 + 1
    end = at + 2 + struct.unpack_from(">H", hello, at)[0]
    at += 2
    while at + 4 <= end:
        kind, length = struct.unpack_from(">HH", hello, at)
        if kind == SUPPORTED_VERSIONS:
            return struct.unpack_from(">H", hello, at + 4)[0]
        at += 4 + length
    return struct.unpack_from(">H", hello)[0]


def read(path, pattern):
    """Counts of a capture: packets by kind, TCP streams that are not TLS 1.3, and places where the pattern is found."""
    found = collections.Counter()
    segments = []
    for protocol, source, destination, payload in packets(path):
        found["packets"] += 1
        if protocol == TCP:
            found["tcp"] += 1
            segments.append((source, destination, payload))
        elif protocol == UDP:
            found["udp"] += 1
        else:
            found["other"] += 1
        found["pattern"] += pattern in payload
    for stream in streams(segments).values():
        found["tls_streams"] += is_tls_1_3(stream)
        found["not_tls"] += not is_tls_1_3(stream)
        found["tls_bytes"] += len(stream)
        found["pattern"] += pattern in stream
    return found


def not_quic(path):
    """By tshark: how many packets of UDP are QUIC of version 1, in flows that begin with its handshake; and lines of those that are not."""
    command = ["tshark", "-n", "-r", str(path), "-Y", "udp", "-T", "fields", "-e", "frame.number", "-e", "udp.stream", "-e", "frame.protocols",
               "-e", "quic.version", "-e", "_ws.malformed"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"tshark: {done.stderr.strip()[-300:]}")
    quic, others, flows = 0, [], set()
    for line in done.stdout.splitlines():
        number, flow, protocols, versions, malformed = (line.split("\t") + [""] * 5)[:5]
        known = {version for version in versions.split(",") if version}
        if known == {"0x00000001"}:
            flows.add(flow)
        if "quic" in protocols.split(":") and known <= {"0x00000001"} and flow in flows and not malformed:
            quic += 1
        else:
            others.append(f"{number}: {protocols} {versions} {malformed}")
    return quic, others
