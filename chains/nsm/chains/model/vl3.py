"""The addresses of a vL3 network: one network, of which each endpoint has a prefix for itself and its clients.

An endpoint's own address is the network address of its prefix. Its clients have the addresses behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nsm.apis.connection import Connection

from .addresses import Address, Network
from .dns import is_domain
from .template_functions import Value
from .templates import NO_VALUE, Functions, compile_template


@dataclass(frozen=True, slots=True)
class Share:
    """An endpoint's part of a vL3 network in one address family.

    `whole` is the network; `excluded` are the parts of `prefix` that no client gets.
    """

    prefix: Network
    whole: Network
    excluded: tuple[str, ...] = ()

    @property
    def own(self) -> Address:
        """The endpoint's own address."""
        return self.prefix.network_address

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.prefix.version


def whole_of(prefix: Network) -> Network:
    """The network that a prefix is assumed to be of if nothing else is known: half the bits of its own address.

    That is upstream's rule: a /16 or a /64, or the prefix itself if that is larger.
    """
    return ipaddress.ip_network(
        (prefix.network_address, min(prefix.max_prefixlen // 2, prefix.prefixlen)), strict=False
    )


def target(name: Value) -> Value:
    """The part of a name before its ``@``."""
    return str(name).partition("@")[0]


def domain(name: Value) -> Value:
    """The part of a name behind its ``@``; empty if it has none."""
    return str(name).partition("@")[2]


_FUNCTIONS: Functions = (("target", target), ("domain", domain))


def check_template(text: str) -> str:
    """The template of a DNS name. Raises ValueError if it is none."""
    if "{{" in text and compile_template(text, _FUNCTIONS) is None:
        raise ValueError(
            f"{text!r} is not a template; expected one such as {{{{ .Labels.podName }}}}.{{{{ .NetworkService }}}}"
        )
    return text


def names_of(connection: Connection, templates: Sequence[str]) -> list[str]:
    """The DNS names of a client by `templates`, without the dot at the end; invalid names are left out.

    A template uses the connection's fields, such as ``.Labels`` and ``.NetworkService``.
    """
    fields = _fields(connection)
    found = (_rendered(template, fields) for template in templates)
    return list(dict.fromkeys(name for name in found if name and is_domain(name)))


def search_domains(names: Sequence[str]) -> list[str]:
    """What to append to a short name to find one of `names`: each of their proper suffixes."""
    found = []
    for name in names:
        labels = name.split(".")
        found += [".".join(labels[start:]) for start in range(1, len(labels))]
    return list(dict.fromkeys(found))


def _fields(connection: Connection) -> Mapping[str, object]:
    return {
        "Id": connection.id,
        "NetworkService": connection.network_service,
        "NetworkServiceEndpointName": connection.network_service_endpoint_name,
        "Labels": dict(connection.labels),
        "Payload": connection.payload,
    }


def _rendered(template: str, fields: Mapping[str, object]) -> str:
    render: Callable[[Mapping[str, object]], str] | None = compile_template(template, _FUNCTIONS)
    text = (template if render is None else render(fields)).strip().lower()
    if NO_VALUE in text or "{{" in text or text.startswith("."):
        return ""  # a label that the client does not have
    return ".".join(label for label in text.split(".") if label)
