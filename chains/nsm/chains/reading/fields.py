"""The values of a document, each with the path of its field, which errors name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from reprlib import Repr
from typing import Any

from .nearest import instead_of, is_part_of, nearest

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 60, 60, 60
_LONGEST_KEY = 64
_HALF = re.compile("[\ud800-\udfff]")
"""An unpaired UTF-16 surrogate, which JSON allows and messages cannot carry."""


class Field:
    """A value from JSON or YAML, and its path, such as ``matches[0].routes[0].weight``.

    Null counts as missing, as it does in Go. Each method returns the value in the shape that its name says, empty if
    it is missing, and raises ValueError ``PATH is VALUE; expected SHAPE`` for anything else.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def fault(self, expected: str) -> ValueError:
        """The error that states what was expected instead of this value."""
        return ValueError(f"{self.path} is {shown(self.value)}; expected {expected}")

    def fields(
        self,
        known: Collection[str],
        what: str,
        *,
        former: Mapping[str, str] | None = None,
        is_root: bool = False,
        extensible: bool = False,
    ) -> Fields:
        """The fields of an object; all must be `known`.

        `what` describes the object. `former` maps old names of fields to what to write now. The paths of a root's
        fields begin with their names. With `extensible`, unknown names that resemble no known one are accepted: a
        later version may have added them.
        """
        if not isinstance(self.value, Mapping):
            raise self.fault("an object")
        for key in self.value:
            if key not in known and not (extensible and is_foreign(key, known, former)):
                raise self._unknown(key, known, what, former or {})
        return Fields(self.value, "" if is_root else self.path)

    def items(self) -> Iterator[tuple[str, Field]]:
        """The entries of an object that may have any keys."""
        if self.value is None:
            return
        if not isinstance(self.value, Mapping):
            raise self.fault("an object")
        for key, value in self.value.items():
            if not isinstance(key, str):
                raise ValueError(f"{self.path} has the key {shown(key)}; expected text, in quotes if need be")
            if _HALF.search(key):
                raise ValueError(f"{self.path} has the key {shown(key)}, which contains half a character")
            yield key, Field(value, f"{self.path}.{key}")

    def each(self) -> list[Field]:
        """The items of a list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.fault("a list")
        return [Field(value, f"{self.path}[{number}]") for number, value in enumerate(self.value)]

    def text(self) -> str:
        """A text."""
        return "" if self.value is None else self.must_be_text()

    def must_be_text(self) -> str:
        """A text that must not be missing."""
        if not isinstance(self.value, str):
            raise self.fault("text")
        if _HALF.search(self.value):
            raise self.fault("text of whole characters")
        return self.value

    def text_or_number(self) -> str:
        """A text, or a whole number without quotes."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        return self.text() if self.value is None or isinstance(self.value, str) else self._no_text_or_number()

    def _no_text_or_number(self) -> str:
        raise self.fault("a text or a number")

    def texts(self) -> list[str]:
        """The texts of a list."""
        return [item.must_be_text() for item in self.each()]

    def labels(self) -> dict[str, str]:
        """Texts by any keys."""
        return {key: value.must_be_text() for key, value in self.items()}

    def flag(self) -> bool:
        """True or false."""
        if self.value is None:
            return False
        if not isinstance(self.value, bool):
            raise self.fault("true or false")
        return self.value

    def whole(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        if self.value is None:
            return 0
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.fault("a whole number")
        if not least <= self.value <= most:
            raise self.fault(f"{least} to {most}")
        return self.value

    def _unknown(self, key: object, known: Collection[str], what: str, former: Mapping[str, str]) -> ValueError:
        if not isinstance(key, str):
            return ValueError(f"{self.path} has the key {shown(key)}, which is not a field of {what}; expected text")
        name = key if len(key) <= _LONGEST_KEY and key.isprintable() else shown(key)
        where = f"{self.path}.{name}" if self.path else name
        if key in former:
            return ValueError(f"{where} is the spelling from before NSM 1.0; expected {former[key]}")
        return ValueError(f"{where} is not a field of {what}; expected {instead_of(key[:_LONGEST_KEY], known)}")


class Fields:
    """The fields of one object by their names; a missing one has no value."""

    __slots__ = ("_path", "_values")

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self._values, self._path = values, path

    def __getitem__(self, name: str) -> Field:
        return Field(self._values.get(name), f"{self._path}.{name}" if self._path else name)

    def __contains__(self, name: str) -> bool:
        return name in self._values


def is_foreign(key: object, known: Collection[str], former: Mapping[str, str] | None = None) -> bool:
    """Whether `key` is neither `known` nor similar to a known one: not a misspelling, but another component's key."""
    if not isinstance(key, str) or key in known or key in (former or {}):
        return False
    return nearest(key, known) is None and is_part_of(key, known) is None


def shown(value: Any) -> str:
    """The beginning of a value, which may be long, or nested too deeply for `repr`."""
    return _SHORT.repr(value)
