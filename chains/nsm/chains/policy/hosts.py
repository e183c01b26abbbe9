"""Sets of hosts by prefix or name, for configuration."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*")


class Hosts:
    """A set of hosts: prefixes (``10.0.0.0/8``, ``fd00::1``) and names (``gw.example.org``, ``*.example.org``).

    Names never match addresses, nor prefixes names. Immutable; an empty set matches no host.
    """

    def __init__(self, items: Iterable[str] = ()) -> None:
        """Raises ValueError for an item that is neither."""
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
        """Whether an address or a name is in the set."""
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
