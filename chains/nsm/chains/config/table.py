"""Tables of texts that may change while a component runs: outside addresses by inside ones, or labels by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nsm.chains.core import InvalidRequest

from .address import Address, parse_address


class Table(Protocol):
    """A table that may change, such as a `WatchedFile` of one."""

    def value(self) -> Mapping[str, str]:
        """The current table."""
        ...


class NoTable:
    """An empty table."""

    def value(self) -> Mapping[str, str]:
        """Nothing."""
        return {}


def outside(url: str, table: Table) -> str:
    """`url` with the outside address of its host, if `table` has one."""
    addresses = table.value()
    if not addresses:
        return url
    try:
        address = parse_address(url)
    except InvalidRequest:
        return url
    if address.is_unix or address.host not in addresses:
        return url
    return str(Address(host=addresses[address.host], port=address.port))
