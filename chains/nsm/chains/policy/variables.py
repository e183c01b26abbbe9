"""The variables that say by which policies a component goes."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.config import Common, items, variable

from .hosts import Hosts
from .policies import CLIENT_MASKS, REGISTRY_CLIENT_MASKS, REGISTRY_SERVER_MASKS, SERVER_MASKS, PolicySet
from .registration import Registration


def masks(value: str) -> tuple[str, ...]:
    """Masks of policies or paths of policy files, comma separated; none switches the checks off. Raises ValueError."""
    chosen = items(value)
    if value and not chosen:
        raise ValueError("expected masks of policies, comma separated; only an empty value switches all checks off")
    PolicySet.select(chosen)
    return chosen


@dataclass(frozen=True, kw_only=True)
class ServerPolicies(Common):
    """What every component reads that is asked for connections."""

    server_policies: tuple[str, ...] = variable(
        ",".join(SERVER_MASKS), masks, "policies for those who ask for connections"
    )


@dataclass(frozen=True, kw_only=True)
class ClientPolicies(Common):
    """What every component reads that asks others for connections."""

    client_policies: tuple[str, ...] = variable(
        ",".join(CLIENT_MASKS), masks, "policies for who answers that there is a connection"
    )


@dataclass(frozen=True, kw_only=True)
class RegistryServerPolicies(Common):
    """What every component reads at which others register."""

    registry_server_policies: tuple[str, ...] = variable(
        ",".join(REGISTRY_SERVER_MASKS), masks, "policies for those who register"
    )
    registration_policy: Registration = variable(
        "", Registration.parse, "who may register for which service: SERVICE=PATTERN|PATTERN,..; `*`: for any not named"
    )
    registration_hosts: Hosts = variable(
        "",
        Hosts.parse,
        "where endpoints may be beside the address that they register from: prefixes, names of hosts",
    )


@dataclass(frozen=True, kw_only=True)
class RegistryClientPolicies(Common):
    """What every component reads that registers something at a manager or a registry, or asks who did."""

    registry_client_policies: tuple[str, ...] = variable(
        ",".join(REGISTRY_CLIENT_MASKS), masks, "policies for the answers of the manager or registry"
    )
