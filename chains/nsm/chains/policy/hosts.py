"""Hosts by prefix or name: how a configuration says at which addresses something may be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*")


class Hosts:
    """Which hosts are meant: prefixes (``10.0.0.0/8``, ``fd00::1``) and names (``gw.example.org``, ``*.example.org``).

    An address is never meant by a name, nor a name by a prefix. Immutable; none means no host at all.
    """

    def __init__(self, items: Iterable[str] = ()) -> None:
        """Raises ValueError for what is neither."""
        networks: list[Network] = []
        names: list[str] = []
        for item in items:
            try:
                networks.append(ipaddress.ip_network(item))
            except ValueError as error:
                if not _NAME.fullmatch(item) or _is_numeric(item):
                    raise ValueError(
                        f"{item!r} is not a host: {error}; expected a prefix such as 10.0.0.0/8, or a name such as "
                        "gw.example.org or *.example.org"
                    ) from None
                names.append(item.lower())
        self._networks, self._names = tuple(networks), tuple(names)

    def have(self, host: IpAddress | str) -> bool:
        """Whether an address, or a name, is meant."""
        if isinstance(host, str):
            name = host.lower()
            return any(name.endswith(each[1:]) if each.startswith("*") else name == each for each in self._names)
        return any(host in network for network in self._networks)

    @classmethod
    def parse(cls, value: str) -> Hosts:
        """From a comma separated list. Raises ValueError."""
        return cls(item.strip() for item in value.split(",") if item.strip())


NO_HOSTS = Hosts()


def _is_numeric(item: str) -> bool:
    return item.rpartition(".")[2].isdigit()
