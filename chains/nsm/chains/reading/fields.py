"""The values of a document, each with the path of its field: what is wrong is told by that."""

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
"""JSON may have one half of a pair of UTF-16, which no message can carry."""


class Field:
    """A value as JSON or YAML has it, and where it stands, such as ``matches[0].routes[0].weight``.

    Null is as good as nothing, as it is for Go. Each method gives the value in the shape of its name, the empty one of
    that shape where there is nothing, and raises ValueError ``PATH is VALUE; expected SHAPE`` for all else.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def fault(self, expected: str) -> ValueError:
        """The error that says what was expected instead of this value."""
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
        """The fields of an object, none but those that are `known`.

        `what` says what the object is. `former` has names that fields had before, with what is to be written now.
        The paths of a root's fields begin with their names. Where it is `extensible`, a name that is like none that is
        known may be there: of a later version.
        """
        if not isinstance(self.value, Mapping):
            raise self.fault("an object")
        for key in self.value:
            if key not in known and not (extensible and is_foreign(key, known, former)):
                raise self._unknown(key, known, what, former or {})
        return Fields(self.value, "" if is_root else self.path)

    def items(self) -> Iterator[tuple[str, Field]]:
        """The entries of an object whose keys are free."""
        if self.value is None:
            return
        if not isinstance(self.value, Mapping):
            raise self.fault("an object")
        for key, value in self.value.items():
            if not isinstance(key, str):
                raise ValueError(f"{self.path} has the key {shown(key)}; expected text, in quotes if need be")
            if _HALF.search(key):
                raise ValueError(f"{self.path} has the key {shown(key)}, with half a character in it")
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
        """A text that has to be there."""
        if not isinstance(self.value, str):
            raise self.fault("text")
        if _HALF.search(self.value):
            raise self.fault("text of whole characters")
        return self.value

    def text_or_number(self) -> str:
        """A text, or a whole number, which needs no quotes."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        return self.text() if self.value is None or isinstance(self.value, str) else self._no_text_or_number()

    def _no_text_or_number(self) -> str:
        raise self.fault("a text or a number")

    def texts(self) -> list[str]:
        """The texts of a list."""
        return [item.must_be_text() for item in self.each()]

    def labels(self) -> dict[str, str]:
        """Texts by free keys."""
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
            return ValueError(f"{self.path} has the key {shown(key)}, which is no field of {what}; expected text")
        name = key if len(key) <= _LONGEST_KEY and key.isprintable() else shown(key)
        where = f"{self.path}.{name}" if self.path else name
        if key in former:
            return ValueError(f"{where} is a spelling of NSM before 1.0; expected {former[key]}")
        return ValueError(f"{where} is no field of {what}; expected {instead_of(key[:_LONGEST_KEY], known)}")


class Fields:
    """The fields of one object by their names; one that is not there has no value."""

    __slots__ = ("_path", "_values")

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self._values, self._path = values, path

    def __getitem__(self, name: str) -> Field:
        return Field(self._values.get(name), f"{self._path}.{name}" if self._path else name)

    def __contains__(self, name: str) -> bool:
        return name in self._values


def is_foreign(key: object, known: Collection[str], former: Mapping[str, str] | None = None) -> bool:
    """Whether `key` is none of the `known` and like none of them: not misspelt, but of somebody else."""
    if not isinstance(key, str) or key in known or key in (former or {}):
        return False
    return nearest(key, known) is None and is_part_of(key, known) is None


def shown(value: Any) -> str:
    """The beginning of a value: it may be long, and nested too deep for `repr`."""
    return _SHORT.repr(value)
