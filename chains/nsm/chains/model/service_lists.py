"""Lists of network services with fields in braces, as upstream writes them: `NAME { key: value; key: value }, ..`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=_Named)


def parse_services(
    text: str, pattern: re.Pattern[str], such_as: str, service: Callable[[str, str], S]
) -> tuple[S, ...]:
    """Each service of a list. `pattern` has the groups `name` and `fields`; `service` makes one of their texts.

    Raises ValueError for an empty list and for other text, both with `such_as`, and for a name that is given twice.
    """
    services = tuple(_each(text.strip(), pattern, such_as, service))
    names = [each.name for each in services]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"service {', '.join(map(repr, twice))} is given twice")
    return services


def _each(text: str, pattern: re.Pattern[str], such_as: str, service: Callable[[str, str], S]) -> Iterable[S]:
    position = 0
    while position < len(text) or not position:
        found = pattern.match(text, position)
        if found is None:
            raise ValueError(f"{text[position:].strip()!r} is not a service; {such_as}" if text else such_as)
        yield service(found["name"], found["fields"])
        position = found.end()
