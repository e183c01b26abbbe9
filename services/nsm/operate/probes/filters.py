"""Filters of packets: a small part of the language of tcpdump, compiled to the kernel's classic BPF.

    expression = term {"or" term};  term = factor {"and" factor};  factor = "not" factor | "(" expression ")" | test
    test = "ip" | "ip6" | "arp" | "icmp" | "icmp6" | "tcp" | "udp"
         | ["src" | "dst"] "host" ADDRESS | ["src" | "dst"] "net" PREFIX | ["tcp" | "udp"] ["src" | "dst"] "port" NUMBER

The kernel runs the filter, so what does not match costs next to nothing. Headers are found by the kernel's own offsets:
a filter means the same on interfaces with and without Ethernet. Ports of IPv6 are found without extension headers.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

WHOLE = 1 << 18
"""Bytes that are kept of a packet: all of it."""
PROTOCOLS = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD}
TRANSPORTS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}
_WORD, _HALF, _BYTE, _INDIRECT_HALF, _HEADER_LENGTH = 0x20, 0x28, 0x30, 0x48, 0xB1
_AND, _EQUAL, _ANY_BIT, _RETURN = 0x54, 0x15, 0x45, 0x06
_NETWORK, _PROTOCOL = -0x100000, -0x1000
"""SKF_NET_OFF, where the network header begins, and SKF_AD_OFF + SKF_AD_PROTOCOL, its type (linux/filter.h)."""
_WORDS = re.compile(r"[()!]|&&|\|\||[^\s()!&|]+")
_MOST_WORDS, _LONGEST_JUMP = 200, 255
_SAME = {"&&": "and", "||": "or", "!": "not"}
_EXAMPLE = "such as `icmp`, `tcp port 80` or `host 10.0.0.1 and not arp`"


@dataclass(frozen=True)
class Check:
    """Loads a value and compares it; `is_bits`: it is true if any of the bits of `value` is set."""

    loads: tuple[tuple[int, int], ...]
    value: int
    is_bits: bool = False


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Test


@dataclass(frozen=True)
class And:
    """Both."""

    left: Test
    right: Test


@dataclass(frozen=True)
class Or:
    """One of both."""

    left: Test
    right: Test


Test = Check | Not | And | Or


def compiled(words: str, keep: int = WHOLE) -> bytes:
    """The program of a filter, as an array of struct sock_filter; it keeps `keep` bytes of each packet that matches.

    An empty filter matches every packet. Raises ValueError that names the word that is wrong.
    """
    found = _WORDS.findall(words)
    if len(found) > _MOST_WORDS:
        raise ValueError(f"the filter has more than {_MOST_WORDS} words")
    if not found:
        return _instruction(_RETURN, 0, 0, keep)
    return _Code().program(_Parser([_SAME.get(each, each) for each in found]).whole(), keep)


def _instruction(code: int, when_true: int, when_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value & 0xFFFFFFFF)


@dataclass
class _Code:
    """Instructions whose jumps are to labels, which are resolved at the end; all jumps are forward."""

    lines: list[tuple[int, int, int, int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def program(self, test: Test, keep: int) -> bytes:
        """The whole program."""
        accept, reject = self._label(), self._label()
        self._test(test, accept, reject)
        for label, value in ((accept, keep), (reject, 0)):
            self._here(label)
            self.lines.append((_RETURN, -1, -1, value))
        return b"".join(self._resolved(place, *line) for place, line in enumerate(self.lines))

    def _test(self, test: Test, yes: int, no: int) -> None:
        match test:
            case Check():
                self.lines += [(code, -1, -1, offset) for code, offset in test.loads]
                self.lines.append((_ANY_BIT if test.is_bits else _EQUAL, yes, no, test.value))
            case Not():
                self._test(test.part, no, yes)
            case And():
                both = self._label()
                self._test(test.left, both, no)
                self._here(both)
                self._test(test.right, yes, no)
            case Or():
                other = self._label()
                self._test(test.left, yes, other)
                self._here(other)
                self._test(test.right, yes, no)

    def _label(self) -> int:
        self.places.append(-1)
        return len(self.places) - 1

    def _here(self, label: int) -> None:
        self.places[label] = len(self.lines)

    def _resolved(self, place: int, code: int, yes: int, no: int, value: int) -> bytes:
        when_true, when_false = (0 if label < 0 else self.places[label] - place - 1 for label in (yes, no))
        if max(when_true, when_false) > _LONGEST_JUMP:
            raise ValueError("the filter is too long for the kernel: leave out some of its hosts, nets or ports")
        return _instruction(code, when_true, when_false, value)


class _Parser:
    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._place = words, 0

    def whole(self) -> Test:
        found = self._either()
        if (word := self._next()) is not None:
            raise ValueError(f"{word!r} is not expected there; join tests by `and` or `or`, {_EXAMPLE}")
        return found

    def _either(self) -> Test:
        found = self._both()
        while self._takes("or"):
            found = Or(found, self._both())
        return found

    def _both(self) -> Test:
        found = self._factor()
        while self._takes("and"):
            found = And(found, self._factor())
        return found

    def _factor(self) -> Test:
        if self._takes("not"):
            return Not(self._factor())
        if self._takes("("):
            found = self._either()
            if not self._takes(")"):
                raise ValueError("a bracket is not closed")
            return found
        return self._primitive()

    def _primitive(self) -> Test:
        word = self._word(f"a test, {_EXAMPLE}")
        if word in PROTOCOLS:
            return _protocol(word)
        if word in ("tcp", "udp"):
            if self._peek() in ("src", "dst", "port"):
                return self._of_side(self._word("port"), [word])
            return _transport(word)
        if word in TRANSPORTS:
            return _transport(word)
        return self._of_side(word, ["tcp", "udp"])

    def _of_side(self, word: str, transports: Sequence[str]) -> Test:
        sides = ["src", "dst"]
        if word in sides:
            sides, word = [word], self._word("host, net or port")
        if word == "port":
            number = self._number()
            return _either([_port(each, side, number) for each in transports for side in sides])
        if word not in ("host", "net") or len(transports) == 1:
            raise ValueError(f"{word!r} is not a test; write one {_EXAMPLE}")
        network = self._network(word)
        return _either([_address(side, network) for side in sides])

    def _number(self) -> int:
        word = self._word("a port number")
        if not (word.isascii() and word.isdigit() and int(word[:6]) <= 0xFFFF):
            raise ValueError(f"port {word!r}: expected a number up to 65535")
        return int(word)

    def _network(self, kind: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        word = self._word("an address")
        try:
            if kind == "host":
                return ipaddress.ip_network(ipaddress.ip_address(word))
            return ipaddress.ip_network(word)
        except ValueError as error:
            raise ValueError(f"{kind} {word!r}: {error}") from None

    def _peek(self) -> str | None:
        return self._words[self._place] if self._place < len(self._words) else None

    def _next(self) -> str | None:
        found = self._peek()
        self._place += 1
        return found

    def _takes(self, word: str) -> bool:
        if self._peek() != word:
            return False
        self._place += 1
        return True

    def _word(self, what: str) -> str:
        if (found := self._next()) is None:
            raise ValueError(f"the filter ends where {what} is expected")
        return found


def _either(tests: Sequence[Test]) -> Test:
    return reduce(Or, tests)


def _both(*tests: Test) -> Test:
    return reduce(And, tests)


def _protocol(name: str) -> Test:
    return Check(((_WORD, _PROTOCOL),), PROTOCOLS[name])


def _byte(offset: int, value: int) -> Test:
    return Check(((_BYTE, _NETWORK + offset),), value)


def _transport(name: str) -> Test:
    number = TRANSPORTS[name]
    four, six = _both(_protocol("ip"), _byte(9, number)), _both(_protocol("ip6"), _byte(6, number))
    return {"icmp": four, "icmp6": six}.get(name) or Or(four, six)


def _port(transport: str, side: str, number: int) -> Test:
    at = 0 if side == "src" else 2
    first = Not(Check(((_HALF, _NETWORK + 6),), 0x1FFF, is_bits=True))  # later fragments have no ports
    load = ((_HEADER_LENGTH, _NETWORK), (_INDIRECT_HALF, _NETWORK + at))
    four = _both(_protocol("ip"), _byte(9, TRANSPORTS[transport]), first, Check(load, number))
    six = Check(((_HALF, _NETWORK + 40 + at),), number)
    return Or(four, _both(_protocol("ip6"), _byte(6, TRANSPORTS[transport]), six))


def _address(side: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Test:
    def at(offset: int) -> Test:
        address, mask = network.network_address.packed, network.netmask.packed
        checks: list[Test] = []
        for place in range(0, len(address), 4):
            value, bits = (int.from_bytes(each[place : place + 4], "big") for each in (address, mask))
            if bits:
                loads = ((_WORD, _NETWORK + offset + place), *([(_AND, bits)] if bits != 0xFFFFFFFF else []))
                checks.append(Check(loads, value))
        return reduce(And, checks)

    is_source = side == "src"
    if network.version == 6:
        return And(_protocol("ip6"), at(8 if is_source else 24)) if network.prefixlen else _protocol("ip6")
    if not network.prefixlen:
        return Or(_protocol("ip"), _protocol("arp"))
    of_arp = And(_protocol("arp"), at(14 if is_source else 24))
    return Or(And(_protocol("ip"), at(12 if is_source else 16)), of_arp)
