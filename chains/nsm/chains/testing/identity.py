"""Identities without a Workload API."""

from __future__ import annotations

from nsm.chains.identity import Authority, Identity


def identity_of(authority: Authority, workload: str, *trusted: Authority, token_lifetime: float = 600.0) -> Identity:
    """An identity ``spiffe://<domain>/<workload>`` that also trusts the domains of `trusted`."""
    identity = Identity(token_lifetime=token_lifetime)
    svid = authority.issue(f"spiffe://{authority.trust_domain}/{workload}")
    bundles = {each.trust_domain: [each.certificate] for each in (authority, *trusted)}
    identity.update(svid, bundles)
    return identity
