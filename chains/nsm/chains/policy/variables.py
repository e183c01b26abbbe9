"""The variables that select a component's policies."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.config import Common, items, variable

from .hosts import Hosts
from .policies import CLIENT_MASKS, REGISTRY_CLIENT_MASKS, REGISTRY_SERVER_MASKS, SERVER_MASKS, PolicySet
from .registration import Registration


def masks(value: str) -> tuple[str, ...]:
    """Masks of policies or paths of policy files, comma separated; empty disables the checks. Raises ValueError."""
    chosen = items(value)
    if value and not chosen:
        raise ValueError("expected masks of policies, comma separated; only an empty value disables all checks")
    PolicySet.select(chosen)
    return chosen


@dataclass(frozen=True, kw_only=True)
class ServerPolicies(Common):
    """Variables of every component that serves connections."""

    server_policies: tuple[str, ...] = variable(
        ",".join(SERVER_MASKS), masks, "policies for callers that request connections"
    )


@dataclass(frozen=True, kw_only=True)
class ClientPolicies(Common):
    """Variables of every component that requests connections."""

    client_policies: tuple[str, ...] = variable(
        ",".join(CLIENT_MASKS), masks, "policies for peers that answer requests for connections"
    )


@dataclass(frozen=True, kw_only=True)
class RegistryServerPolicies(Common):
    """Variables of every component that accepts registrations."""

    registry_server_policies: tuple[str, ...] = variable(
        ",".join(REGISTRY_SERVER_MASKS), masks, "policies for callers that register"
    )
    registration_policy: Registration = variable(
        "", Registration.parse, "who may register for which service: SERVICE=PATTERN|PATTERN,..; `*`: all others"
    )
    registration_hosts: Hosts = variable(
        "",
        Hosts.parse,
        "allowed addresses of endpoints besides the one that they register from: prefixes, host names",
    )


@dataclass(frozen=True, kw_only=True)
class RegistryClientPolicies(Common):
    """Variables of every component that calls a manager's or a registry's registry API."""

    registry_client_policies: tuple[str, ...] = variable(
        ",".join(REGISTRY_CLIENT_MASKS), masks, "policies for answers of the manager or registry"
    )
