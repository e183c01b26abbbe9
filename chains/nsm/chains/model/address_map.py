"""Addresses behind NAT: a table from the addresses that nodes have to those by which other domains reach them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .addresses import read_address


def parse_address_map(document: Any) -> dict[str, str]:
    """A table, ``10.244.1.7: 203.0.113.9``, from a YAML document; no document is an empty table.

    Raises ValueError that names the invalid entry: a table with a part of its entries would be worse than an old one.
    """
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ValueError("expected a map such as 10.244.1.7: 203.0.113.9")
    table = {}
    for inside, outside in document.items():
        for address in (inside, outside):
            if not isinstance(address, str) or read_address(address) is None:
                raise ValueError(f"{str(address)[:64]!r} is not an IP address; expected entries such as {_EXAMPLE}")
        table[inside] = outside
    return table


_EXAMPLE = "10.244.1.7: 203.0.113.9"


def parse_labels(document: Any) -> dict[str, str]:
    """Labels, ``clusterName: my.cluster1``, from a YAML document. Raises ValueError that names the invalid entry."""
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ValueError("expected a map such as clusterName: my.cluster1")
    for key, value in document.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | bool):
            raise ValueError(f"{str(key)[:64]!r} has no text as its value")
    return {key: str(value) for key, value in document.items()}
