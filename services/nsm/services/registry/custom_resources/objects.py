"""Records as custom resources, in the shape that upstream's registry writes and reads.

The `spec` of an object is the record as Go's encoding/json writes a protobuf struct: snake_case, nothing that is empty,
and a time as ``{"seconds": 1, "nanos": 2}``. What a person or another registry wrote is read strictly: an object that
is no record is a ValueError that says which field is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from reprlib import Repr
from typing import Any, Generic

from nsm.apis.registry import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
)
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import R
from nsm.kube import Object, Resource

from .names import object_name

Json = dict[str, Any]

_GROUP, _VERSION = "networkservicemesh.io", "v1"

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of the years 1 to 9999: what a protobuf Timestamp may say, and what a date can be made of."""

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 2, 60, 60


@dataclass(frozen=True)
class Form(Generic[R]):
    """How records of one kind look as objects."""

    resource: Resource
    to_spec: Callable[[R], Json]
    from_spec: Callable[[Json, str], R]
    """Takes the object's own name too, for a spec without one."""
    fields: frozenset[str]
    """What a spec has of ours; anything else in it is somebody else's and stays."""

    def to_object(self, record: R, namespace: str, held: Object | None = None) -> Object:
        """The object for `record`; written over `held`, of whose version it then is."""
        if held is None:
            metadata = {"name": object_name(record.name), "namespace": namespace}
            return {"metadata": metadata, "spec": self.to_spec(record)}
        before = held.get("spec")
        theirs = before.items() if isinstance(before, dict) else ()
        kept = {name: value for name, value in theirs if name not in self.fields}
        return {**held, "spec": {**kept, **self.to_spec(record)}}

    def from_object(self, found: Object) -> R:
        """The record in an object. Raises ValueError with what is wrong in it."""
        return self.from_spec(_mapping(found.get("spec"), "spec"), found["metadata"]["name"])


def _service_to_spec(service: NetworkService) -> Json:
    return _filled(
        name=service.name,
        payload=service.payload,
        matches=[_match_to_spec(match) for match in service.matches],
        path_ids=list(service.path_ids),
    )


def _match_to_spec(match: Match) -> Json:
    routes = [
        _filled(destination_selector=dict(route.destination_selector), weight=route.weight) for route in match.routes
    ]
    spec = _filled(source_selector=dict(match.source_selector), routes=routes, fallthrough=match.fallthrough)
    if match.metadata is not None:
        spec["metadata"] = _filled(labels=dict(match.metadata.labels))
    return spec


def _service_from_spec(spec: Json, name: str) -> NetworkService:
    return NetworkService(
        name=_text(spec, "name") or name,
        payload=_text(spec, "payload"),
        matches=[_match_from_spec(each, where) for where, each in _list(spec, "matches")],
        path_ids=_texts(spec, "path_ids"),
    )


def _match_from_spec(value: Any, where: str) -> Match:
    spec = _mapping(value, where)
    return Match(
        source_selector=_labels(spec, "source_selector", where),
        routes=[_route_from_spec(each, inside) for inside, each in _list(spec, "routes", where)],
        fallthrough=_flag(spec, "fallthrough", where),
        metadata=_metadata_from_spec(spec, "metadata", where),
    )


def _metadata_from_spec(spec: Json, name: str, within: str) -> Metadata | None:
    where = _path(within, name)
    return None if spec.get(name) is None else Metadata(labels=_labels(_mapping(spec[name], where), "labels", where))


def _route_from_spec(value: Any, where: str) -> Destination:
    spec = _mapping(value, where)
    return Destination(
        destination_selector=_labels(spec, "destination_selector", where),
        weight=_whole(spec, "weight", where, least=0, most=2**32 - 1),
    )


def _endpoint_to_spec(endpoint: NetworkServiceEndpoint) -> Json:
    return _filled(
        name=endpoint.name,
        network_service_names=list(endpoint.network_service_names),
        network_service_labels={
            service: _filled(labels=dict(labels.labels)) for service, labels in endpoint.network_service_labels.items()
        },
        url=endpoint.url,
        expiration_time=_time_to_spec(endpoint.expiration_time),
        initial_registration_time=_time_to_spec(endpoint.initial_registration_time),
        path_ids=list(endpoint.path_ids),
    )


def _endpoint_from_spec(spec: Json, name: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=_text(spec, "name") or name,
        network_service_names=_texts(spec, "network_service_names"),
        network_service_labels={
            service: NetworkServiceLabels(labels=_labels(_mapping(of, where), "labels", where))
            for service, where, of in _items(spec, "network_service_labels")
        },
        url=_text(spec, "url"),
        expiration_time=_time_from_spec(spec, "expiration_time"),
        initial_registration_time=_time_from_spec(spec, "initial_registration_time"),
        path_ids=_texts(spec, "path_ids"),
    )


def _time_to_spec(moment: Timestamp | None) -> Json | None:
    return None if moment is None else _filled(seconds=moment.seconds, nanos=moment.nanos) or {"seconds": 0}


def _time_from_spec(spec: Json, name: str) -> Timestamp | None:
    if spec.get(name) is None:
        return None
    moment = _mapping(spec[name], name)
    return Timestamp(
        seconds=_whole(moment, "seconds", name, least=_FIRST_SECOND, most=_LAST_SECOND),
        nanos=_whole(moment, "nanos", name, least=0, most=999_999_999),
    )


def _filled(**values: Any) -> Json:
    """Without what is empty, as Go's `omitempty` does."""
    return {name: value for name, value in values.items() if value}


# What is null is as good as not there, as it is for Go.


def _mapping(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_shown(value)}; expected an object")
    return value


def _items(spec: Json, name: str, within: str = "") -> list[tuple[str, str, Any]]:
    """Each key of a map, where its value stands, and that."""
    where = _path(within, name)
    value = spec.get(name)
    return [] if value is None else [(key, _path(where, key), of) for key, of in _mapping(value, where).items()]


def _list(spec: Json, name: str, within: str = "") -> list[tuple[str, Any]]:
    """Where each value of a list stands, and the value."""
    where = _path(within, name)
    value = spec.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{where} is {_shown(value)}; expected a list")
    return [(f"{where}[{number}]", each) for number, each in enumerate(value)]


def _text(spec: Json, name: str) -> str:
    value = spec.get(name)
    return "" if value is None else _as_text(value, name)


def _texts(spec: Json, name: str) -> list[str]:
    return [_as_text(value, where) for where, value in _list(spec, name)]


def _labels(spec: Json, name: str, within: str) -> dict[str, str]:
    return {label: _as_text(value, where) for label, where, value in _items(spec, name, within)}


def _as_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {_shown(value)}; expected text")
    return value


def _flag(spec: Json, name: str, within: str) -> bool:
    value = spec.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ValueError(f"{_path(within, name)} is {_shown(value)}; expected true or false")
    return value


def _whole(spec: Json, name: str, within: str, *, least: int, most: int) -> int:
    value = spec.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{_path(within, name)} is {_shown(value)}; expected a whole number")
    if not least <= value <= most:
        raise ValueError(f"{_path(within, name)} is {_shown(value)}; expected {least} to {most}")
    return value


def _path(within: str, name: str) -> str:
    return f"{within}.{name}" if within else name


def _shown(value: Any) -> str:
    """The beginning of it: it may be long, and nested too deep for `repr`."""
    return _SHORT.repr(value)


SERVICE_FORM: Form[NetworkService] = Form(
    Resource(_GROUP, _VERSION, "networkservices", "NetworkService"),
    _service_to_spec,
    _service_from_spec,
    frozenset({"name", "payload", "matches", "path_ids"}),
)

ENDPOINT_FORM: Form[NetworkServiceEndpoint] = Form(
    Resource(_GROUP, _VERSION, "networkserviceendpoints", "NetworkServiceEndpoint"),
    _endpoint_to_spec,
    _endpoint_from_spec,
    frozenset(
        {
            "name",
            "network_service_names",
            "network_service_labels",
            "url",
            "expiration_time",
            "initial_registration_time",
            "path_ids",
        }
    ),
)
