"""The variables of `nsm nse-vl3`."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.apis.payloads import IP
from nsm.chains.config import duration, flag, items, pairs, text, url, urls, variable
from nsm.chains.model.vl3 import check_template
from nsm.chains.policy import ClientPolicies
from nsm.chains.serving import EndpointConfig, payload, services

_SHORTEST_CHECK = 0.01


def _ip(value: str) -> str:
    if payload(value) != IP:
        raise ValueError("a vL3 network carries IP")
    return value


def _templates(value: str) -> tuple[str, ...]:
    return tuple(check_template(each) for each in items(value))


def _servers(value: str) -> tuple[str, ...]:
    if not (found := urls(value)):
        raise ValueError("expected the prefix services, comma separated, such as vl3-ipam:5006")
    return found


def _pause(value: str) -> float:
    seconds = duration(value)
    if seconds < _SHORTEST_CHECK:
        raise ValueError("expected 10ms or more: a check takes a round trip at least, and each costs a packet")
    return seconds


@dataclass(frozen=True, kw_only=True)
class NseVl3Config(EndpointConfig, ClientPolicies):
    """The settings of an endpoint of a vL3 network."""

    name: str = variable("vL3-server", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[str, ...] = variable("vL3", services, "the services to provide, which are one network")
    payload: str = variable(IP, _ip, "what a wire carries: IP")
    listen_on: str = variable("", url, "where to listen; empty: a socket in a temporary folder")
    unregister_itself: bool = variable("true", flag, "unregister when stopping")
    prefix_server_url: tuple[str, ...] = variable(
        "vl3-ipam:5006", _servers, "the prefix services, one for each address family"
    )
    dns_templates: tuple[str, ...] = variable(
        '{{ index .Labels "podName" }}.{{ .NetworkService }}.',
        _templates,
        "names of clients: Go templates over their connections, a,b (without commas in them); a client without a "
        "label that a template uses has no name",
    )
    request_labels: dict[str, str] = variable("", pairs, "labels of the wires to other endpoints, key:value,..")
    liveness_check_enabled: bool = variable("true", flag, "check by pings whether wires to other endpoints work")
    liveness_check_interval: float = variable("1200ms", _pause, "the time between two checks")
    liveness_check_timeout: float = variable("1s", _pause, "how long one check waits for answers")
