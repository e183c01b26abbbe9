"""Messages in protobuf's JSON form, with the field names of the .proto files and defaults left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from betterproto2 import Casing, Message

M = TypeVar("M", bound=Message)

_PROTO_NAMES = {"next_hop": "nextHop", "mtu": "MTU"}
_PYTHON_NAMES = {proto: python for python, proto in _PROTO_NAMES.items()}
_MAPS_OF_TEXT = {"labels", "parameters", "metrics", "extra_context", "source_selector", "destination_selector"}
_MAPS_OF_MESSAGES = {"connections", "network_service_labels"}


def to_json(message: Message) -> dict[str, Any]:
    """`message` as plain values for `json.dumps`."""
    return _renamed(message.to_dict(casing=Casing.SNAKE), _PROTO_NAMES)


def from_json(kind: type[M], value: Mapping[str, Any]) -> M:
    """A message of `kind` from plain values. Raises KeyError for a field that it does not have."""
    return kind.from_dict(_renamed(value, _PYTHON_NAMES))


def _renamed(value: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename fields at every level, but not the keys of maps, which are free text."""
    rename: Callable[[Any], Any] = lambda item: _renamed(item, names) if isinstance(item, Mapping) else item  # noqa: E731
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, list):
            result[names.get(key, key)] = [rename(one) for one in item]
        elif key in _MAPS_OF_TEXT:
            result[key] = item
        elif key in _MAPS_OF_MESSAGES:
            result[key] = {name: rename(one) for name, one in item.items()}
        else:
            result[names.get(key, key)] = rename(item)
    return result
