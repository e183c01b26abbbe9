"""The `input` documents for policies in files, in the shapes that NSM's policies expect."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from nsm.apis import connection
from nsm.chains.core import Peer

from .tokens import claims_of

Document = dict[str, Any]


def of_path(path: connection.Path | None, peer: Peer | None, *, whole: bool) -> Document:
    """A connection's path and the peer's certificate; the path up to its index, or the `whole` path of an answer.

    ``{"index", "path_segments": [{"name", "id", "token", "expires": {"seconds", "nanos"}, "metrics"}], "auth_info":
    {"certificate": PEM}}``; empty and zero values are left out, except the certificate.
    """
    path = connection.Path() if path is None else path
    segments = path.path_segments if whole else path.path_segments[: path.index + 1]
    document = _filled(index=path.index, path_segments=[_segment(each) for each in segments])
    return {**document, "auth_info": _auth_info(peer)}


def of_registration(
    name: str, tokens: Sequence[str], index: int, peer: Peer | None, *, owner: str, owners: Mapping[str, Sequence[str]]
) -> Document:
    """A Register or Unregister of the record `name` by `owner`; `owners` has the path ids of registered names.

    ``{"resource_id", "resource_name", "resource_path_ids_map": {name: [SPIFFE ID, ...]}, "path_segments": [{"token"}],
    "index", "auth_info": {"certificate": PEM}}``.
    """
    return {
        "resource_id": owner,
        "resource_name": name,
        "resource_path_ids_map": {each: list(ids) for each, ids in owners.items()},
        "path_segments": [{"token": token} for token in tokens],
        "index": index,
        "auth_info": _auth_info(peer),
    }


def of_monitor(peer: Peer, selected: Sequence[str], connections: Mapping[str, Sequence[str]]) -> Document:
    """A monitor by `peer` of the connections `selected`; `connections` has the connection ids of each client.

    ``{"service_spiffe_id", "selector_connection_ids": [id, ...], "spiffe_id_connection_map": {SPIFFE ID: [id, ...]}}``.
    """
    return {
        "service_spiffe_id": peer.spiffe_id,
        "selector_connection_ids": list(selected),
        "spiffe_id_connection_map": {each: list(ids) for each, ids in connections.items()},
    }


def path_ids(tokens: Sequence[str]) -> list[str]:
    """The subjects that the tokens of a path claim; unreadable tokens are skipped."""
    return [claims.subject for token in tokens if (claims := claims_of(token)) is not None and claims.subject]


def _segment(segment: connection.PathSegment) -> Document:
    expires = segment.expires
    moment = _filled(seconds=expires.seconds, nanos=expires.nanos) if expires is not None else None
    filled = _filled(name=segment.name, id=segment.id, token=segment.token)
    if moment is not None:
        filled["expires"] = moment
    return {**filled, **_filled(metrics=dict(segment.metrics))}


def _filled(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value}


def _auth_info(peer: Peer | None) -> Document:
    return {"certificate": ssl.DER_cert_to_PEM_cert(peer.certificate_der) if peer is not None else ""}
