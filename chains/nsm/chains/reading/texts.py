"""Parses JSON and YAML; duplicate keys are errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LONGEST = 500
"""Longest text of a fault, in characters: it quotes the document."""


def read_json(text: str) -> Any:
    """The values of a JSON document. Raises ValueError with a message of one line."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_yaml(text: str) -> Any:
    """The values of a YAML document. Raises ValueError with a message of one line that names the document's line."""
    import yaml  # noqa: PLC0415 - most components never read any

    with yaml_faults():
        return yaml.load(text, _loader())  # noqa: S506 - a safe one


@contextmanager
def yaml_faults() -> Iterator[None]:
    """Turn whatever PyYAML raises into a ValueError with a message of one line."""
    import yaml  # noqa: PLC0415 - as above

    try:
        yield
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())[:_LONGEST].replace('in "<unicode string>", ', "in ")
        raise ValueError("it is nested too deep" if "nesting depth" in told else told) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (AttributeError, LookupError):  # of PyYAML, for a value such as `!!bool x`
        raise ValueError("a value does not match its tag") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:64]!r} is given twice")
    return found


@cache
def _loader() -> Any:
    """PyYAML's safe loader, the fast one if available, that rejects duplicate keys."""
    import yaml  # noqa: PLC0415 - as above

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if (key.tag, key.value) in seen:
                        line = key.start_mark.line + 1
                        raise ValueError(f"line {line}: the key {key.value[:64]!r} is given twice")
                    seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep=deep)

    return Loader
