"""What a text from outside may be: one rule for each kind of value.

Names, labels, addresses and texts of peers end up in file names, kernel objects, logs and terminals, so none of them
has control, bidirectional or format characters, line breaks, or a length without bound. A fault says what is wrong with
a value and never repeats it; whoever raises it says which value it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nsm.chains.core import InvalidRequest

from . import interface_name
from .addresses import read_address, read_interface
from .dns import is_server

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
_PCI = re.compile(r"(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_FLAGS = frozenset({"", "1", "0", "t", "f", "T", "F", "true", "false", "TRUE", "FALSE", "True", "False"})
_LONGEST_NUMBER, _LONGEST_ADDRESS = 20, 64


class Rule(Protocol):
    """What values of one kind may be."""

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        ...

    def fault(self, value: str) -> str:
        """Why it may not, without repeating it: ``has 70000 characters; at most 512 are possible``."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """At most `longest` printable characters, as Unicode has it; without `spaces` not even those."""

    longest: int
    spaces: bool = True

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        return len(value) <= self.longest and value.isprintable() and (self.spaces or " " not in value)

    def fault(self, value: str) -> str:
        """What is too much, or which character cannot be and where it is."""
        if len(value) > self.longest:
            return f"has {len(value)} characters; at most {self.longest} are possible"
        place, character = next(
            (place, each)
            for place, each in enumerate(value, 1)
            if not each.isprintable() or (each == " " and not self.spaces)
        )
        what = "a space" if character == " " else f"a control or format character (U+{ord(character):04X})"
        return f"has {what} at position {place}"


@dataclass(frozen=True, slots=True)
class Form:
    """What `is_one` says it is, or nothing at all if it may be `empty`; at most `longest` characters."""

    about: str
    longest: int
    is_one: Callable[[str], object]
    empty: bool = False

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        return bool(self.is_one(value)) if 0 < len(value) <= self.longest else self.empty and not value

    def fault(self, value: str) -> str:
        """What it should be."""
        if len(value) > self.longest:
            return f"has {len(value)} characters; expected {self.about}"
        return f"is not {self.about}" if value else f"is empty; expected {self.about}"


@dataclass(frozen=True, slots=True)
class _Interface:
    """The name of an interface, or none yet."""

    def fits(self, value: str) -> bool:
        return not value or interface_name.fault(value) is None

    def fault(self, value: str) -> str:
        return interface_name.reason(value) or ""


def number_up_to(most: int) -> Form:
    """A number in decimal, from 0 to `most`, or nothing."""
    about = f"a number from 0 to {most}"
    return Form(about, _LONGEST_NUMBER, lambda value: read_number(value, most) is not None, empty=True)


def read_number(text: str, most: int) -> int | None:
    """The number that `text` is in decimal, from 0 to `most`, or None; of any length, in bounded time."""
    if len(text) > _LONGEST_NUMBER or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None


def check(rule: Rule, value: str, where: str) -> None:
    """Raise `InvalidRequest` that begins with `where` if `value` is not of the kind that `rule` describes."""
    if not rule.fits(value):
        raise InvalidRequest(f"{where} {rule.fault(value)}")


NAME = Text(512)
"""A name or an id: of a service, an endpoint, a client, a path segment, a connection; ``icmp@my.domain``, ``nsc-0``."""
KEY = Text(512)
"""The key of a label, a parameter, a metric."""
LABEL = Text(1024)
"""The value of a label."""
URL = Text(1024, spaces=False)
"""Where somebody listens, or a file that was passed."""
FREE = Text(4096)
"""Any other text of one line."""
TOKEN = Text(8192, spaces=False)
"""A JWT."""
INTERFACE: Rule = _Interface()
"""The name of an interface as Linux takes it, or nothing: one is made then."""
INTERFACE_ADDRESS = Form("an address with a prefix length, such as 10.0.0.1/32", _LONGEST_ADDRESS, read_interface)
PREFIX = Form("a prefix, such as 10.0.0.0/24 or fd00::/64", _LONGEST_ADDRESS, read_interface)
EXCLUDED_PREFIX = Text(_LONGEST_ADDRESS, spaces=False)
"""What should be a prefix: a text that is none excludes nothing."""
ADDRESS = Form("an IP address", _LONGEST_ADDRESS, read_address)
NEXT_HOP = Form("an IP address", _LONGEST_ADDRESS, read_address, empty=True)
MAC = Form("a hardware address, such as 02:00:00:00:00:01", 17, _MAC.fullmatch)
MAC_OR_NONE = Form(MAC.about, MAC.longest, _MAC.fullmatch, empty=True)
PCI = Form("a PCI address, such as 0000:3b:02.1", 16, _PCI.fullmatch, empty=True)
FLAG = Form("true or false", 5, _FLAGS.__contains__, empty=True)
PORT = number_up_to(65535)
DNS_SERVER = Form("the IP address of a DNS server", _LONGEST_ADDRESS, is_server)
DNS_DOMAIN = Text(255, spaces=False)
"""What should be a domain name: upstream's endpoints make some out of the names of services, and who looks names up
leaves out what is none."""
