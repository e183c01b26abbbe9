"""A recorded call from a file, for `nsm policy test`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis import jsonform
from nsm.apis.connection import Path as ConnectionPath
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Peer, Refused
from nsm.chains.identity.svid import spiffe_id_of, trust_domain_of
from nsm.chains.policy import Path, documents

CONNECTION, REGISTRATION, MONITOR = "connection", "registration", "monitor"
MOST_BYTES = 4 << 20
_SERVICES = ("network_service", "network_service_endpoint")
_EXPECTED = (
    "expected the input of a policy (path_segments, resource_name or service_spiffe_id at the top), a recorded Request"
    ' {"connection": {..}}, or a recorded Register {"network_service_endpoint": {..}, "path": {..}}'
)


@dataclass(frozen=True)
class RecordedCall:
    """The input of native policies (`path`), that of policies in files (`document`), and what else is known."""

    kind: str
    path: Path
    document: documents.Document
    services: tuple[str, ...] = ()
    """The network services that a Register is for."""

    @property
    def has_certificate(self) -> bool:
        """Whether signatures can be verified."""
        return self.path.peer is not None and bool(self.path.peer.certificate_der)


def read_call(text: str, peer: str = "") -> RecordedCall:
    """Parse the JSON of a call. `peer`, a certificate (PEM) or a SPIFFE ID, overrides the peer in the text.

    Raises ValueError with a message of one line.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES >> 20} MiB")
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(_EXPECTED)
        return _call(value, _peer(peer or _named_peer(value)))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: it is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{_EXPECTED}: {type(error).__name__}: {str(error)[:200]}") from None


def _call(value: dict[str, Any], peer: Peer | None) -> RecordedCall:
    if "request" in value or "connection" in value:
        return _request(value.get("request", value), peer)
    if any(kind in value for kind in _SERVICES):
        return _register(value, peer)
    if "service_spiffe_id" in value or "selector_connection_ids" in value:
        return _monitor(value, peer)
    if "resource_name" in value or "resource_id" in value:
        return _given(REGISTRATION, value, peer)
    if "path_segments" in value or "index" in value or "auth_info" in value:
        return _given(CONNECTION, value, peer)
    raise ValueError(_EXPECTED)


def _given(kind: str, value: dict[str, Any], peer: Peer | None) -> RecordedCall:
    """The input of a policy, except for an overridden peer."""
    tokens, index = _tokens(value.get("path_segments", [])), _index(value)
    document = {**value, "auth_info": documents.of_path(None, _certified(peer), whole=False)["auth_info"]}
    return RecordedCall(kind, Path(tokens, index, peer), document)


def _request(value: dict[str, Any], peer: Peer | None) -> RecordedCall:
    """A Request as its caller sent it: the receiving component follows the caller's segment."""
    connection = jsonform.from_json(NetworkServiceRequest, {"connection": value["connection"]}).connection
    path = connection.path if connection is not None and connection.path is not None else ConnectionPath()
    sent = ConnectionPath(index=path.index + 1, path_segments=path.path_segments[: path.index + 1])
    tokens = [segment.token for segment in sent.path_segments]
    document = documents.of_path(sent, _certified(peer), whole=True)
    return RecordedCall(CONNECTION, Path(tokens, sent.index, peer), document)


def _register(value: dict[str, Any], peer: Peer | None) -> RecordedCall:
    """A Register as its caller sent it, with the path from the metadata."""
    kind = next(each for each in _SERVICES if each in value)
    record, path = value[kind], {key.lower(): item for key, item in value.get("path", {}).items()}
    segments = path.get("pathsegments") or path.get("path_segments") or []
    index = _index(path)
    tokens = _tokens(segments)[: index + 1]
    owners = {name: [str(each) for each in ids] for name, ids in value.get("resource_path_ids_map", {}).items()}
    ids = documents.path_ids(tokens)
    document = documents.of_registration(
        str(record["name"]), tokens, index + 1, _certified(peer), owner="".join(ids[:1]), owners=owners
    )
    services = [record["name"]] if kind == _SERVICES[0] else record.get("network_service_names", [])
    return RecordedCall(REGISTRATION, Path(tokens, index + 1, peer), document, tuple(map(str, services)))


def _monitor(value: dict[str, Any], peer: Peer | None) -> RecordedCall:
    who = peer or _peer(str(value.get("service_spiffe_id", "")))
    return RecordedCall(MONITOR, Path([], 0, who), {**value, "service_spiffe_id": who.spiffe_id if who else ""})


def _tokens(segments: Any) -> list[str]:
    if not isinstance(segments, list):
        raise ValueError("path segments are not a list")
    return [str(segment.get("token", "")) for segment in segments]


def _index(value: Mapping[str, Any]) -> int:
    index = value.get("index", 0)
    if not isinstance(index, int) or not 0 <= index < 1 << 31:
        raise ValueError(f"index {str(index)[:20]!r} is not an index in the path")
    return index


def _named_peer(value: Mapping[str, Any]) -> str:
    peer = value.get("peer", value)
    if isinstance(peer, str):
        return peer
    certificate = value.get("auth_info", {}).get("certificate", "") or peer.get("certificate", "")
    return str(certificate or peer.get("spiffe_id", ""))


def _peer(text: str) -> Peer | None:
    if not text:
        return None
    try:
        if not re.search("BEGIN CERTIFICATE", text):
            trust_domain_of(text)
            return Peer(text, b"")
        leaf = x509.load_pem_x509_certificate(text.encode())
        return Peer(spiffe_id_of(leaf), leaf.public_bytes(Encoding.DER))
    except (Refused, ValueError) as error:
        raise ValueError(f"the peer is neither a certificate nor a SPIFFE ID: {error}") from None


def _certified(peer: Peer | None) -> Peer | None:
    return peer if peer is not None and peer.certificate_der else None
