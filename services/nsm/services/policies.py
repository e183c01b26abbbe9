"""The policies for registrations, as upstream's components have them."""

from __future__ import annotations

from nsm.chains.policy import REGISTRY_CLIENT_MASKS, REGISTRY_SERVER_MASKS, masks

REGISTRY_SERVER = ",".join(REGISTRY_SERVER_MASKS)
REGISTRY_CLIENT = ",".join(REGISTRY_CLIENT_MASKS)
REGISTRATION_POLICY = "who may register for which service: SERVICE=PATTERN|PATTERN,..; `*`: for any service not named"
REGISTRATION_HOSTS = "where endpoints may be beside the address that they register from: prefixes, names of hosts"

__all__ = ["REGISTRY_CLIENT", "REGISTRY_SERVER", "masks"]
