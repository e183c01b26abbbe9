"""Reads YAML nodes, which know their lines, and collects faults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import yaml

from .nearest import nearest

T = TypeVar("T")

_TEXT, _NUMBER, _FLAG = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "bool"))


class YamlReader:
    """Returns values of the requested type; any other type is recorded as a fault, and an empty value is returned."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._faults: list[tuple[int, str]] = []

    @property
    def faults(self) -> list[str]:
        """A line for each fault, in the order of the file."""
        return [f"{self._source}:{line}: {text}" for line, text in sorted(self._faults, key=lambda fault: fault[0])]

    def line(self, node: Any) -> int:
        """The line of a node, from 1."""
        return line_of(node)

    def fault(self, node: Any, text: str) -> None:
        """Record a fault at `node`; without a node, in the file as a whole."""
        self._faults.append((line_of(node), text))

    def root(self, text: str) -> Any:
        """The root node of a file; None with a fault if it is not YAML, or contains itself."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            self._faults.append((mark.line + 1 if mark else 1, str(error.problem)))
            return None
        except RecursionError:
            self._faults.append((1, "the file is nested too deeply"))
            return None
        except yaml.YAMLError as error:
            self._faults.append((1, str(error).splitlines()[0]))
            return None
        if root is not None and (circle := _circle(root, frozenset(), set())) is not None:
            self.fault(circle, "this contains itself through an alias")
            return None
        return root

    def mapping(self, node: Any, allowed: Collection[str], what: str) -> dict[str, Any]:
        """The values of a mapping by their keys."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what} must be a mapping with the keys {', '.join(sorted(allowed))}")
            return {}
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value not in allowed:
                name = repr(key.value) if isinstance(key, yaml.ScalarNode) else "that is not text"
                self.fault(
                    key, f"unknown key {name} in {what}; there are {', '.join(sorted(allowed))}{_hint(key, allowed)}"
                )
            elif key.value in found:
                self.fault(key, f"the key {key.value!r} is given twice in {what}")
            else:
                found[key.value] = value
        return found

    def each(self, node: Any, read: Callable[[Any], T]) -> Iterator[T]:
        """The result of `read` for every item of an optional list."""
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, "expected a list")
            return
        for item in node.value:
            yield read(item)

    def texts(self, node: Any) -> tuple[str, ...]:
        """The items of a list of texts."""
        return tuple(self.each(node, self.text))

    def text(self, node: Any) -> str:
        """A text; numbers and words such as ``yes`` must be quoted."""
        if node is None:
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, "expected a text")
            return ""
        value: str = node.value
        if node.tag != _TEXT:
            self.fault(node, f"expected a text; write {value!r} with quotes" if value else "expected a text")
        return value

    def number(self, node: Any, lowest: int, highest: int, default: int, what: str) -> int:
        """A whole number in a range."""
        if node is None:
            return default
        value = yaml.SafeLoader("").construct_object(node) if getattr(node, "tag", "") == _NUMBER else None
        if not isinstance(value, int) or not lowest <= value <= highest:
            self.fault(node, f"{what} {getattr(node, 'value', '')!r}: expected a number from {lowest} to {highest}")
            return default
        return value

    def flag(self, node: Any) -> bool:
        """True or false; false if missing."""
        if node is None:
            return False
        if getattr(node, "tag", "") != _FLAG:
            self.fault(node, "expected true or false")
            return False
        return bool(yaml.SafeLoader("").construct_object(node))

    def pairs(self, node: Any, what: str, wrong: Callable[[str, str], str | None]) -> dict[str, str]:
        """Names with values, as written; `wrong` returns what is wrong with a pair, or None."""
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what} must be a mapping")
            return {}
        found: dict[str, str] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
                self.fault(key, f"{what}: expected a name and one value")
            elif key.value in found:
                self.fault(key, f"the key {key.value!r} is given twice in {what}")
            elif (fault := wrong(key.value, value.value)) is not None:
                self.fault(key, fault)
            else:
                found[key.value] = value.value
        return found


def line_of(node: Any) -> int:
    """The line of a node, from 1."""
    return int(node.start_mark.line) + 1 if node is not None else 1


def _hint(key: Any, allowed: Collection[str]) -> str:
    near = nearest(key.value, allowed) if isinstance(key, yaml.ScalarNode) else None
    return f"; did you mean {near!r}?" if near is not None else ""


def _circle(node: Any, above: frozenset[int], done: set[int]) -> Any:
    """A node that contains itself through an alias; None if there is none."""
    if isinstance(node, yaml.ScalarNode) or id(node) in done:
        return None
    if id(node) in above:
        return node
    items = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    below = above | {id(node)}
    circle = next((found for item in items if (found := _circle(item, below, done)) is not None), None)
    done.add(id(node))
    return circle
