"""Who may register for which network service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .patterns import IdPatterns

VARIABLE = "NSM_REGISTRATION_POLICY"
OTHERS = "*"
"""Stands for every network service without a rule of its own, and for endpoints without services."""
FORWARDERS = IdPatterns(["/forwarder", "/forwarder-*", "/*/forwarder", "/ns/nsm-system/pod/forwarder-*"])
MANAGERS = IdPatterns(["/nsmgr", "/nsmgr-*", "/*/nsmgr", "/ns/nsm-system/pod/nsmgr-*"])
"""The usual identities of forwarders and managers, if no rule names them."""


@dataclass(frozen=True)
class Registration:
    """Rules by the name of a network service; services without a rule are open to everyone.

    Written as ``SERVICE=PATTERN|PATTERN,SERVICE=PATTERN``. A rule without patterns closes a service to everyone.
    """

    rules: Mapping[str, IdPatterns] = field(default_factory=dict)

    def refuses(self, spiffe_id: str, services: Iterable[str]) -> str | None:
        """The first of `services` that `spiffe_id` may neither provide nor define, or None.

        Without services, the rule for all others decides.
        """
        for service in services or (OTHERS,):
            rule = self.rules[service] if service in self.rules else self.rules.get(OTHERS)
            if rule is not None and not rule.matches(spiffe_id):
                return service
        return None

    def unless_listed(self, service: str, patterns: IdPatterns) -> Registration:
        """These rules, with `patterns` for `service` if it has no rule."""
        return self if service in self.rules else Registration({**self.rules, service: patterns})

    def within(self, trust_domain: str) -> Registration:
        """The same rules; patterns that name no trust domain are completed with this one."""
        return Registration({service: patterns.within(trust_domain) for service, patterns in self.rules.items()})

    @classmethod
    def parse(cls, value: str) -> Registration:
        """Raises ValueError that names the invalid rule."""
        rules: dict[str, IdPatterns] = {}
        for rule in filter(None, map(str.strip, value.split(","))):
            service, equals, patterns = (part.strip() for part in rule.partition("="))
            if not equals or not service:
                raise ValueError(f"{rule!r} is not a rule; expected SERVICE=PATTERN|PATTERN, such as {_EXAMPLE}")
            if service in rules:
                raise ValueError(f"{service!r} has two rules; put | between the patterns of one")
            rules[service] = _patterns(service, patterns)
        return cls(rules)


_EXAMPLE = "forwarder=/ns/nsm-system/pod/forwarder-*"


def _patterns(service: str, patterns: str) -> IdPatterns:
    try:
        return IdPatterns(filter(None, map(str.strip, patterns.split("|"))))
    except ValueError as error:
        raise ValueError(f"rule of {service!r}: {error}") from None
