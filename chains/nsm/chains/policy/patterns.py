"""Patterns of SPIFFE IDs, for configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_PATTERN = re.compile(r"(spiffe://[a-z0-9._*-]{1,255})?(/[A-Za-z0-9._*-]+)*")
_ANY = "[A-Za-z0-9._-]"
"""A character of a segment of a SPIFFE ID."""
_REMEMBERED = 4096


class IdPatterns:
    """A set of SPIFFE IDs: exact ones, or patterns with `*` (within a segment) and `**` (any rest of the path).

    ``spiffe://example.org/ns/nsm-system/pod/nsmgr-*`` matches every pod of that namespace whose name begins so.
    ``spiffe://example.org/**`` matches the whole trust domain. A pattern that begins with its path, such as
    ``/ns/nsm-system/pod/nsmgr-*``, is for our own trust domain: it matches nothing until `within` sets the domain.
    Immutable; an empty set matches nothing.
    """

    def __init__(self, patterns: Iterable[str] = (), *, trust_domain: str = "") -> None:
        """Raises ValueError for an invalid pattern. `trust_domain` is our own, once it is known."""
        self.trust_domain = trust_domain
        self.patterns = tuple(dict.fromkeys(patterns))
        self._compiled = re.compile("|".join(f"(?:{_expression(each)})" for each in self.patterns) or "(?!)")
        self.matches = lru_cache(maxsize=_REMEMBERED)(self._matches)

    def __bool__(self) -> bool:
        """Whether there are any patterns."""
        return bool(self.patterns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdPatterns) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"IdPatterns({list(self.patterns)!r})"

    def __str__(self) -> str:
        return ",".join(self.patterns)

    def _matches(self, spiffe_id: str) -> bool:
        return self._compiled.fullmatch(spiffe_id) is not None

    def within(self, trust_domain: str) -> IdPatterns:
        """The same patterns; those that name no trust domain are completed with this one."""
        completed = (f"spiffe://{trust_domain}{each}" if each.startswith("/") else each for each in self.patterns)
        return IdPatterns(completed, trust_domain=trust_domain)

    @classmethod
    def parse(cls, value: str) -> IdPatterns:
        """From a comma separated list. Raises ValueError."""
        return cls(item.strip() for item in value.split(",") if item.strip())


NOBODY = IdPatterns()


def _expression(pattern: str) -> str:
    if not pattern or not _PATTERN.fullmatch(pattern) or "***" in pattern:
        raise ValueError(
            f"{pattern!r} is not a pattern of SPIFFE IDs; expected one such as spiffe://example.org/ns/nsm/pod/nsmgr-* "
            "or, in the own trust domain, /ns/nsm/pod/nsmgr-*"
        )
    if "**" in pattern and pattern.index("**") != len(pattern) - 2:
        raise ValueError(f"{pattern!r}: ** stands for the rest of the path, so it comes last")
    rest = pattern.endswith("/**")
    stem = pattern.removesuffix("/**") if rest else pattern
    if "**" in stem:
        raise ValueError(f"{pattern!r}: ** stands for whole segments of the path: /**")
    expression = "/".join(map(_segment, stem.split("/")))
    return f"{expression}(?:/{_ANY}+)*" if rest else expression


def _segment(pattern: str) -> str:
    """One segment of a pattern as a regular expression without backtracking, so that matching takes linear time."""
    first, *others = map(re.escape, pattern.split("*"))
    if not others:
        return first
    *between, last = others
    return "".join([first, *(f"(?>{_ANY}*?{part})" for part in between), f"{_ANY}*{last}"])
