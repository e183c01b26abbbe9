"""Rules for text from outside: one for each kind of value.

Names, labels, addresses and other text from peers end up in file names, kernel objects, logs and terminals. So none of
it may have control, bidirectional or format characters, line breaks, or unlimited length. A fault says what is wrong
with a value and never repeats it; the caller names the value.
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
    """The rule for one kind of value."""

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        ...

    def fault(self, value: str) -> str:
        """Why it may not, without repeating it: ``has 70000 characters; at most 512 are allowed``."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """At most `longest` characters that Unicode calls printable; spaces only with `spaces`."""

    longest: int
    spaces: bool = True

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        return len(value) <= self.longest and value.isprintable() and (self.spaces or " " not in value)

    def fault(self, value: str) -> str:
        """The length if it is too long, or the first invalid character and its position."""
        if len(value) > self.longest:
            return f"has {len(value)} characters; at most {self.longest} are allowed"
        place, character = next(
            (place, each)
            for place, each in enumerate(value, 1)
            if not each.isprintable() or (each == " " and not self.spaces)
        )
        what = "a space" if character == " " else f"a control or format character (U+{ord(character):04X})"
        return f"has {what} at position {place}"


@dataclass(frozen=True, slots=True)
class Form:
    """Text that `is_one` accepts, of at most `longest` characters; empty text only if `empty` is set."""

    about: str
    longest: int
    is_one: Callable[[str], object]
    empty: bool = False

    def fits(self, value: str) -> bool:
        """Whether `value` may be one."""
        return bool(self.is_one(value)) if 0 < len(value) <= self.longest else self.empty and not value

    def fault(self, value: str) -> str:
        """What was expected."""
        if len(value) > self.longest:
            return f"has {len(value)} characters; expected {self.about}"
        return f"is not {self.about}" if value else f"is empty; expected {self.about}"


@dataclass(frozen=True, slots=True)
class _Interface:
    """The name of an interface, or empty."""

    def fits(self, value: str) -> bool:
        return not value or interface_name.fault(value) is None

    def fault(self, value: str) -> str:
        return interface_name.reason(value) or ""


def number_up_to(most: int) -> Form:
    """A decimal number from 0 to `most`, or empty."""
    about = f"a number from 0 to {most}"
    return Form(about, _LONGEST_NUMBER, lambda value: read_number(value, most) is not None, empty=True)


def read_number(text: str, most: int) -> int | None:
    """The decimal number in `text`, from 0 to `most`, or None; takes bounded time for any length."""
    if len(text) > _LONGEST_NUMBER or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None


def check(rule: Rule, value: str, where: str) -> None:
    """Raise `InvalidRequest` that begins with `where` if `value` breaks the `rule`."""
    if not rule.fits(value):
        raise InvalidRequest(f"{where} {rule.fault(value)}")


NAME = Text(512)
"""A name or an id: of a service, an endpoint, a client, a path segment, a connection; ``icmp@my.domain``, ``nsc-0``."""
KEY = Text(512)
"""The key of a label, a parameter, a metric."""
LABEL = Text(1024)
"""The value of a label."""
URL = Text(1024, spaces=False)
"""The URL of a listening component, or of a passed file."""
FREE = Text(4096)
"""Any other text of one line."""
TOKEN = Text(8192, spaces=False)
"""A JWT."""
INTERFACE: Rule = _Interface()
"""The name of an interface that Linux accepts, or empty: then one is generated."""
INTERFACE_ADDRESS = Form("an address with a prefix length, such as 10.0.0.1/32", _LONGEST_ADDRESS, read_interface)
PREFIX = Form("a prefix, such as 10.0.0.0/24 or fd00::/64", _LONGEST_ADDRESS, read_interface)
EXCLUDED_PREFIX = Text(_LONGEST_ADDRESS, spaces=False)
"""Supposed to be a prefix; other text excludes nothing."""
ADDRESS = Form("an IP address", _LONGEST_ADDRESS, read_address)
NEXT_HOP = Form("an IP address", _LONGEST_ADDRESS, read_address, empty=True)
MAC = Form("a hardware address, such as 02:00:00:00:00:01", 17, _MAC.fullmatch)
MAC_OR_NONE = Form(MAC.about, MAC.longest, _MAC.fullmatch, empty=True)
PCI = Form("a PCI address, such as 0000:3b:02.1", 16, _PCI.fullmatch, empty=True)
FLAG = Form("true or false", 5, _FLAGS.__contains__, empty=True)
PORT = number_up_to(65535)
DNS_SERVER = Form("the IP address of a DNS server", _LONGEST_ADDRESS, is_server)
DNS_DOMAIN = Text(255, spaces=False)
"""Supposed to be a domain name: upstream's endpoints derive some from the names of services. The resolver ignores
invalid ones."""
