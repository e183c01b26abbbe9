"""The outside addresses of a cluster's nodes, from its objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from nsm.chains.model.address_map import parse_address_map
from nsm.chains.model.addresses import Address, read_address
from nsm.chains.reading import read_yaml
from nsm.kube import Object

INTERNAL, EXTERNAL = "InternalIP", "ExternalIP"


def of_node(node: Object) -> dict[str, str]:
    """Each inside address of a node with the outside one of its family, or itself; outside ones with themselves."""
    inside, outside = _addresses(node, INTERNAL), _addresses(node, EXTERNAL)
    table = {str(address): str(_first_like(address, outside) or address) for address in inside}
    return {**table, **{str(address): str(address) for address in outside}}


def of_own(address: str, node: Object) -> dict[str, str]:
    """The address of our own pod with that by which others reach its node."""
    own = read_address(address)
    if own is None:
        return {}
    found = _first_like(own, _addresses(node, EXTERNAL)) or _first_like(own, _addresses(node, INTERNAL))
    return {address: str(found)} if found is not None else {}


def of_config_map(config_map: Object) -> dict[str, str]:
    """The entries of all tables in a ConfigMap. Raises ValueError that names the key."""
    table: dict[str, str] = {}
    for key, text in (config_map.get("data") or {}).items():
        try:
            table.update(parse_address_map(read_yaml(text if isinstance(text, str) else "")))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return table


def document_of(table: dict[str, str]) -> str:
    """The YAML that proxies read, sorted."""
    text: str = yaml.safe_dump(table, sort_keys=True)
    return text


def _addresses(node: Object, kind: str) -> list[Address]:
    status: Any = node.get("status") or {}
    listed: Any = status.get("addresses") if isinstance(status, dict) else None
    found = [each.get("address") for each in listed or () if isinstance(each, dict) and each.get("type") == kind]
    return [address for text in found if isinstance(text, str) and (address := read_address(text)) is not None]


def _first_like(address: Address, others: Iterable[Address]) -> Address | None:
    return next((each for each in others if each.version == address.version), None)
