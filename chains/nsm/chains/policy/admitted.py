"""Which services of this domain the components of other trust domains may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nsm.chains.config import Common, variable

VARIABLE = "NSM_ADMITTED_DOMAINS"
EVERY = "*"
"""Stands for every service, or for every trust domain without a rule of its own."""
_EXAMPLE = "other.domain=web|db,third.domain=*"


@dataclass(frozen=True)
class Admitted:
    """The services that each other trust domain may find, register for and request. Empty: none.

    Written as ``TRUST_DOMAIN=SERVICE|SERVICE,TRUST_DOMAIN=*``.
    """

    rules: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def admits(self, trust_domain: str, service: str) -> bool:
        """Whether a component of `trust_domain` may use `service`, which has no domain in its name."""
        services = self.rules[trust_domain] if trust_domain in self.rules else self.rules.get(EVERY, frozenset())
        return service in services or EVERY in services

    def refuses(self, trust_domain: str, services: Iterable[str]) -> str | None:
        """The first of `services` that `trust_domain` may not use, or None."""
        return next((each for each in services if not self.admits(trust_domain, each)), None)

    @classmethod
    def parse(cls, value: str) -> Admitted:
        """Raises ValueError that names the invalid rule."""
        rules: dict[str, frozenset[str]] = {}
        for rule in filter(None, map(str.strip, value.split(","))):
            domain, equals, services = (part.strip() for part in rule.partition("="))
            if not equals or not domain or "/" in domain or "@" in services:
                raise ValueError(
                    f"{rule!r} is not a rule; expected TRUST_DOMAIN=SERVICE|SERVICE, such as {_EXAMPLE}, "
                    "with the names that the services have in this domain"
                )
            if domain in rules:
                raise ValueError(f"{domain!r} has two rules; put | between the services of one")
            rules[domain] = frozenset(filter(None, map(str.strip, services.split("|"))))
        return cls(rules)


def why_not(who: str, service: str) -> str:
    """The text of a refusal."""
    return f"no sufficient privileges: {who} may not use {service!r} of this domain; {VARIABLE} controls who may"


@dataclass(frozen=True, kw_only=True)
class Admitting(Common):
    """The variable of components that other domains reach."""

    admitted_domains: Admitted = variable(
        "",
        Admitted.parse,
        "services that federated trust domains may find, register for and request: DOMAIN=SERVICE|SERVICE,..; "
        "`*` for all services, or for all domains",
    )
