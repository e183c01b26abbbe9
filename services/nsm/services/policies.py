"""The policy variables, as upstream's components have them."""

from __future__ import annotations

from nsm.chains.config import items
from nsm.chains.policy import REGISTRY_CLIENT_MASKS, REGISTRY_SERVER_MASKS, PolicySet

REGISTRY_SERVER = ",".join(REGISTRY_SERVER_MASKS)
REGISTRY_CLIENT = ",".join(REGISTRY_CLIENT_MASKS)


def masks(value: str) -> tuple[str, ...]:
    """Masks of policies, comma separated; none switches the checks off. Raises ValueError."""
    chosen = items(value)
    PolicySet.select(chosen)
    return chosen
