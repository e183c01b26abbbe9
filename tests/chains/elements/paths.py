"""Paths of connections for tests."""

import time

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Call

EXPIRY = 600


def path(*names, index=0, lifetime=EXPIRY):
    expires = Timestamp.from_seconds(time.time() + lifetime)
    segments = [PathSegment(name=name, id=f"id-{name}", token="t", expires=codec.clone(expires)) for name in names]
    return Path(index=index, path_segments=segments)


def call_on_a_path(**fields):
    path = Path(index=1, path_segments=[PathSegment(name=name, id=name) for name in ("nsc", "nse")])
    return Call(NetworkServiceRequest(connection=Connection(id="nse", path=path, network_service="svc", **fields)))


def metrics(connection):
    return [segment.metrics for segment in connection.path.path_segments]
