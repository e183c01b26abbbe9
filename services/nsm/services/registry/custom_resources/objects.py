"""Records as custom resources, in the shape that upstream's registry writes and reads.

The `spec` of an object is the record as Go's encoding/json writes a protobuf struct: snake_case, nothing that is empty,
and a time as ``{"seconds": 1, "nanos": 2}``. What a person or another registry wrote is read strictly: an object that
is no record is a ValueError that says which field is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        matches=[_match_from_spec(each, f"matches[{n}]") for n, each in enumerate(_list(spec, "matches"))],
        path_ids=_texts(spec, "path_ids"),
    )


def _match_from_spec(value: Any, where: str) -> Match:
    spec = _mapping(value, where)
    metadata = spec.get("metadata")
    return Match(
        source_selector=_labels(spec, "source_selector", where),
        routes=[_route_from_spec(each, f"{where}.routes[{n}]") for n, each in enumerate(_list(spec, "routes"))],
        fallthrough=spec.get("fallthrough") is True,
        metadata=None if metadata is None else Metadata(labels=_labels(_mapping(metadata, where), "labels", where)),
    )


def _route_from_spec(value: Any, where: str) -> Destination:
    spec = _mapping(value, where)
    weight = _whole(spec, "weight", where)
    if not 0 <= weight < 2**32:
        raise ValueError(f"{where}.weight is {weight}; expected 0 to 4294967295")
    return Destination(destination_selector=_labels(spec, "destination_selector", where), weight=weight)


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
    labels = _mapping(spec.get("network_service_labels") or {}, "network_service_labels")
    return NetworkServiceEndpoint(
        name=_text(spec, "name") or name,
        network_service_names=_texts(spec, "network_service_names"),
        network_service_labels={
            service: NetworkServiceLabels(labels=_labels(_mapping(of, service), "labels", service))
            for service, of in labels.items()
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
    return Timestamp(seconds=_whole(moment, "seconds", name), nanos=_whole(moment, "nanos", name))


def _filled(**values: Any) -> Json:
    """Without what is empty, as Go's `omitempty` does."""
    return {name: value for name, value in values.items() if value}


def _mapping(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_shown(value)}; expected an object")
    return value


def _list(spec: Json, name: str) -> list[Any]:
    value = spec.get(name) or []
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_shown(value)}; expected a list")
    return value


def _text(spec: Json, name: str) -> str:
    value = spec.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}; expected text")
    return value


def _texts(spec: Json, name: str) -> list[str]:
    values = _list(spec, name)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is {_shown(values)}; expected a list of texts")
    return values


def _labels(spec: Json, name: str, where: str) -> dict[str, str]:
    value = spec.get(name) or {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError(f"{where}.{name} is {_shown(value)}; expected a map of texts")
    return dict(value)


def _whole(spec: Json, name: str, where: str) -> int:
    value = spec.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{where}.{name} is {_shown(value)}; expected a whole number")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
