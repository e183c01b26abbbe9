"""The variables that say by which policies a component goes where connections are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.config import Common, items, variable

from .policies import CLIENT_MASKS, SERVER_MASKS, PolicySet


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
