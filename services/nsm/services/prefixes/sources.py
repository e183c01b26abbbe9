"""The addresses that a cluster uses itself, from its objects."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import yaml

from nsm.chains.config.watched_file import PartlyRead
from nsm.chains.elements.excluded_prefixes import prefixes_of, told
from nsm.chains.model.addresses import Network, read_address, read_interface
from nsm.chains.reading import read_yaml
from nsm.kube import Object

_MOST = 1024
"""The most prefixes of one object: a manager sends all of them to each client."""
_LONGEST = 2**18
"""The longest YAML document, in characters, which takes a second to parse."""


def of_node(node: Object) -> list[Network]:
    """The address ranges of a node's pods. Raises ValueError."""
    spec = _mapping(node, "spec")
    return _networks(_listed(spec, "podCIDRs") or [spec.get("podCIDR")])


def of_service(service: Object) -> list[Network]:
    """The addresses of a service, each as a prefix of its own; a headless one has none. Raises ValueError."""
    spec = _mapping(service, "spec")
    texts = _listed(spec, "clusterIPs") or [spec.get("clusterIP")]
    addresses = [read_address(text) for text in texts if isinstance(text, str)]
    return [ipaddress.ip_network(address) for address in addresses if address is not None]


def of_service_cidr(service_cidr: Object) -> list[Network]:
    """The ranges that services get their addresses from (networking.k8s.io/v1, Kubernetes 1.33). Raises ValueError."""
    return _networks(_listed(_mapping(service_cidr, "spec"), "cidrs"))


def of_kubeadm(config_map: Object) -> list[Network]:
    """The ranges of pods and services in kubeadm's configuration. Raises ValueError if they cannot be parsed."""
    name = "ClusterConfiguration"
    document = _document(_entry(config_map, name), name)
    networking = document.get("networking") if isinstance(document, dict) else None
    if document is None or networking is None:
        return []
    if not isinstance(networking, dict):
        raise ValueError("ClusterConfiguration: networking is not a mapping")
    subnets = [_word(networking.get(name) or "").split(",") for name in ("podSubnet", "serviceSubnet")]
    return _networks(subnet.strip() for both in subnets for subnet in both)


def of_user(config_map: Object, key: str) -> list[Network]:
    """Further prefixes to exclude, a YAML list under `prefixes`. Raises ValueError."""
    return in_document(_entry(config_map, key), key)


def in_document(text: str, name: str) -> list[Network]:
    """The prefixes of a YAML list under `prefixes`. Raises ValueError that begins with the `name`."""
    document = _document(text, name)
    try:
        return _networks(prefixes_of(document))
    except PartlyRead as partly:
        raise PartlyRead(f"{name}: {partly}", _networks(partly.value)) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def merged(networks: Iterable[Network]) -> tuple[str, ...]:
    """The smallest equivalent set of prefixes, IPv4 before IPv6, each family in order."""
    every = list(networks)
    four = [network for network in every if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in every if isinstance(network, ipaddress.IPv6Network)]
    return tuple(map(str, [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]))


def document_of(prefixes: Iterable[str]) -> str:
    """The YAML that managers read."""
    text: str = yaml.safe_dump({"prefixes": list(prefixes)})
    return text


def _document(text: str, key: str) -> object:
    if len(text) > _LONGEST:
        raise ValueError(f"{key}: {len(text)} characters are too many; at most {_LONGEST} are allowed")
    try:
        return read_yaml(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _networks(texts: Iterable[Any]) -> list[Network]:
    """Raises `PartlyRead` where only some of them are prefixes."""
    found: list[Network] = []
    faults: list[str] = []
    for text in filter(None, texts):
        try:
            found.append(_network(_word(text)))
        except ValueError as error:
            faults.append(str(error))
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} prefixes are too many; at most {_MOST} are allowed in one object")
    if faults:
        raise PartlyRead(told(faults, list(map(str, found))), found)
    return found


def _network(text: str) -> Network:
    if (interface := read_interface(text)) is None:
        raise ValueError(f"{text[:80]!r} is not a prefix; expected one such as 10.244.0.0/16 or fd00::/64")
    return interface.network


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} is not a prefix; expected one such as 10.244.0.0/16 or fd00::/64")
    return value


def _entry(config_map: Object, key: str) -> str:
    value = _mapping(config_map, "data").get(key) or ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is not text")
    return value


def _mapping(item: Object, key: str) -> Object:
    """The mapping under `key`, empty if there is none. Raises ValueError if it is something else."""
    value = item.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not a mapping")
    return value


def _listed(item: Object, key: str) -> list[Any]:
    value = item.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{key} is not a list")
    return value
