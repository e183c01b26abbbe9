"""Records as custom resources, in the shape that upstream's registry writes and reads.

The `spec` of an object is the record as Go's encoding/json writes a protobuf struct: snake_case, without empty values,
and times as ``{"seconds": 1, "nanos": 2}``. Objects are parsed strictly: one without a valid record, or with an unknown
field, raises ValueError that names the field.
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
from nsm.chains.reading import Field, Fields
from nsm.chains.reading.fields import is_foreign
from nsm.kube import Object, Resource

from .names import object_name

Json = dict[str, Any]

_GROUP, _VERSION = "networkservicemesh.io", "v1"

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 to 9999, the range of a protobuf Timestamp and of dates."""

_PARTS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_MATCH = frozenset({"source_selector", "routes", "fallthrough", "metadata"})
_ROUTE = frozenset({"destination_selector", "weight"})
_LABELS = frozenset({"labels"})
_TIME = frozenset({"seconds", "nanos"})
_FORMER = {
    "sourceSelector": "source_selector",
    "destinationSelector": "destination_selector",
    "match": "source_selector beside routes, without a match around them",
    "route": "routes",
    "destination": "destination_selector and weight, without a destination around them",
}
"""Fields of matches as NSM had them before 1.0 (networkservicemesh.io/v1alpha1)."""


@dataclass(frozen=True)
class Form(Generic[R]):
    """The conversion of one kind of record to and from objects."""

    resource: Resource
    to_spec: Callable[[R], Json]
    from_spec: Callable[[Fields, str], R]
    """Also receives the object's name, for a spec without a name."""
    fields: frozenset[str]
    """The known fields of a spec."""
    former: Mapping[str, str]
    """Names of fields before NSM 1.0, with the current ones."""
    is_extensible: bool
    """Whether a spec may have unknown fields, of a later version, which are kept unless they resemble a known one.

    Endpoints rewrite their whole spec with each registration; a spec that is not extensible may be written by people.
    """

    def to_object(self, record: R, namespace: str, held: Object | None = None) -> Object:
        """The object for `record`; if it replaces `held`, with that version."""
        if held is None:
            metadata = {"name": object_name(record.name), "namespace": namespace}
            return {"metadata": metadata, "spec": self.to_spec(record)}
        return {**held, "spec": {**self._others(held.get("spec")), **self.to_spec(record)}}

    def from_object(self, found: Object) -> R:
        """The record in an object. Raises ValueError with the fault."""
        Field(found, "").fields(_PARTS, "the object", is_root=True)
        spec = Field(found.get("spec"), "spec").fields(
            self.fields, "the spec", former=self.former, is_root=True, extensible=self.is_extensible
        )
        return self.from_spec(spec, found["metadata"]["name"])

    def _others(self, spec: object) -> Json:
        """The fields of a later version."""
        if not self.is_extensible or not isinstance(spec, dict):
            return {}
        return {name: value for name, value in spec.items() if is_foreign(name, self.fields, self.former)}


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


def _service_from_spec(spec: Fields, name: str) -> NetworkService:
    return NetworkService(
        name=spec["name"].text() or name,
        payload=spec["payload"].text(),
        matches=[_match_from_spec(match) for match in spec["matches"].each()],
        path_ids=spec["path_ids"].texts(),
    )


def _match_from_spec(value: Field) -> Match:
    match = value.fields(_MATCH, "a match", former=_FORMER)
    return Match(
        source_selector=match["source_selector"].labels(),
        routes=[_route_from_spec(route) for route in match["routes"].each()],
        fallthrough=match["fallthrough"].flag(),
        metadata=Metadata(labels=_labels_of(match["metadata"], "metadata")) if match["metadata"] else None,
    )


def _route_from_spec(value: Field) -> Destination:
    route = value.fields(_ROUTE, "a route", former=_FORMER)
    return Destination(
        destination_selector=route["destination_selector"].labels(),
        weight=route["weight"].whole(0, 2**32 - 1),
    )


def _labels_of(value: Field, what: str) -> dict[str, str]:
    return value.fields(_LABELS, what)["labels"].labels()


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


def _endpoint_from_spec(spec: Fields, name: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=spec["name"].text() or name,
        network_service_names=spec["network_service_names"].texts(),
        network_service_labels={
            service: NetworkServiceLabels(labels=_labels_of(labels, "a service's labels"))
            for service, labels in spec["network_service_labels"].items()
        },
        url=spec["url"].text(),
        expiration_time=_time_from_spec(spec["expiration_time"]),
        initial_registration_time=_time_from_spec(spec["initial_registration_time"]),
        path_ids=spec["path_ids"].texts(),
    )


def _time_to_spec(moment: Timestamp | None) -> Json | None:
    return None if moment is None else _filled(seconds=moment.seconds, nanos=moment.nanos) or {"seconds": 0}


def _time_from_spec(value: Field) -> Timestamp | None:
    if not value:
        return None
    moment = value.fields(_TIME, "a time")
    return Timestamp(
        seconds=moment["seconds"].whole(_FIRST_SECOND, _LAST_SECOND), nanos=moment["nanos"].whole(0, 999_999_999)
    )


def _filled(**values: Any) -> Json:
    """The values that are not empty, like Go's `omitempty`."""
    return {name: value for name, value in values.items() if value}


SERVICE_FORM: Form[NetworkService] = Form(
    Resource(_GROUP, _VERSION, "networkservices", "NetworkService"),
    _service_to_spec,
    _service_from_spec,
    frozenset({"name", "payload", "matches", "path_ids"}),
    {},
    is_extensible=False,  # ignoring an unknown part of a match could let clients bypass it
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
    {"networkServiceNames": "network_service_names", "networkServiceLabels": "network_service_labels"},
    is_extensible=True,
)
