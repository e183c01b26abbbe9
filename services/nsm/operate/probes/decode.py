"""One line about a packet: addresses, protocol, and what matters of it."""

from __future__ import annotations

import ipaddress
import struct

from .ring import ETHERNET

_VLANS = {0x8100, 0x88A8}
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_TCP_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG"))
_ICMP = {
    0: "echo reply",
    3: "destination unreachable",
    5: "redirect",
    8: "echo request",
    11: "time exceeded",
}
_UNREACHABLE = {0: "network", 1: "host", 2: "protocol", 3: "port", 4: "fragmentation needed", 13: "prohibited"}
_ICMP6 = {
    1: "destination unreachable",
    2: "packet too big",
    3: "time exceeded",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbor solicitation",
    136: "neighbor advertisement",
    143: "multicast listener report",
}
_PROTOCOLS = {2: "IGMP", 47: "GRE", 50: "ESP", 51: "AH", 89: "OSPF", 132: "SCTP"}
_EXTENSIONS = {0, 43, 60}
_DNS, _MDNS = 53, 5353


def summary(data: bytes, link_type: int, length: int) -> str:
    """A line about the packet `data`, also if it is cut off or malformed; it had `length` bytes on the wire."""
    try:
        text = _frame(data) if link_type == ETHERNET else _network(_version(data), data)
    except (struct.error, IndexError):
        text = "cut off or malformed"
    return f"{text}, {length} bytes"


def _version(data: bytes) -> int:
    return {4: 0x0800, 6: 0x86DD}.get(data[0] >> 4, 0)


def _frame(data: bytes) -> str:
    target, source, kind = _ETHERNET.unpack_from(data)
    begin, tags = _ETHERNET.size, ""
    while kind in _VLANS:
        tag, kind = struct.unpack_from("!HH", data, begin)
        begin, tags = begin + 4, f"{tags}VLAN {tag & 0xFFF} "
    text = _network(kind, data[begin:])
    if not text:
        text = f"{_mac(source)} > {_mac(target)} type 0x{kind:04x}"
    return tags + text


def _network(kind: int, data: bytes) -> str:
    if kind == 0x0800:
        return _ip4(data)
    if kind == 0x86DD:
        return _ip6(data)
    if kind == 0x0806:
        _, _, _, _, operation, mac, sender, _, target = _ARP.unpack_from(data)
        if operation == 1:
            return f"ARP who has {_ip(target)}? tell {_ip(sender)}"
        return f"ARP {_ip(sender)} is at {_mac(mac)}"
    return ""


def _ip4(data: bytes) -> str:
    header = (data[0] & 0xF) * 4
    total, _, fragment, _, protocol = struct.unpack_from("!HHHBB", data, 2)
    body = data[header:total] if total else data[header:]  # the kernel leaves it empty for very large ones
    source, target = data[12:16], data[16:20]
    if fragment & 0x1FFF:
        return f"{_ip(source)} > {_ip(target)} fragment at {(fragment & 0x1FFF) * 8}"
    return _transport(source, target, protocol, body)


def _ip6(data: bytes) -> str:
    protocol, body = data[6], data[40:]
    while protocol in _EXTENSIONS:
        protocol, body = body[0], body[(body[1] + 1) * 8 :]
    return _transport(data[8:24], data[24:40], protocol, body)


def _transport(source: bytes, target: bytes, protocol: int, body: bytes) -> str:
    if protocol in (6, 17):
        here, there = struct.unpack_from("!HH", body)
        is_v6 = len(source) == 16
        ends = f"{_at(source, here, is_v6)} > {_at(target, there, is_v6)}"
        return f"{ends} {_tcp(body) if protocol == 6 else _udp(body, {here, there})}"
    text = {1: _icmp, 58: _icmp6}.get(protocol, lambda _: _PROTOCOLS.get(protocol, f"IP protocol {protocol}"))(body)
    return f"{_ip(source)} > {_ip(target)} {text}"


def _tcp(body: bytes) -> str:
    sequence, acknowledged, offset, flags, window = struct.unpack_from("!IIBBH", body, 4)
    names = ",".join(name for bit, name in _TCP_FLAGS if flags & bit) or "no flags"
    size = len(body) - (offset >> 4) * 4
    return f"TCP {names} seq {sequence} ack {acknowledged} win {window} len {size}"


def _udp(body: bytes, ports: set[int]) -> str:
    data = body[8:]
    if ports & {_DNS, _MDNS} and len(data) > 12:
        return f"DNS {'answer' if data[2] & 0x80 else 'query'} {_question(data)} len {len(data)}"
    return f"UDP len {len(data)}"


def _question(data: bytes) -> str:
    labels, place = [], 12
    while (size := data[place]) and size < 64:
        labels.append(data[place + 1 : place + 1 + size].decode("ascii", "replace"))
        place += size + 1
    return ".".join(labels) or "."


def _icmp(body: bytes) -> str:
    kind, code = body[0], body[1]
    text = _ICMP.get(kind, f"type {kind}")
    if kind == 3:
        text += f" ({_UNREACHABLE.get(code, code)})"
    return f"ICMP {text}{_echo(body) if kind in (0, 8) else ''}"


def _icmp6(body: bytes) -> str:
    kind = body[0]
    text = f"ICMPv6 {_ICMP6.get(kind, f'type {kind}')}"
    if kind in (135, 136):
        text += f" {_ip(body[8:24])}"
    return text + (_echo(body) if kind in (128, 129) else "")


def _echo(body: bytes) -> str:
    identifier, sequence = struct.unpack_from("!HH", body, 4)
    return f" id {identifier} seq {sequence}"


def _ip(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed)) if len(packed) in (4, 16) else "?"


def _at(packed: bytes, port: int, is_v6: bool) -> str:
    return f"[{_ip(packed)}]:{port}" if is_v6 else f"{_ip(packed)}:{port}"


def _mac(packed: bytes) -> str:
    return packed.hex(":")
