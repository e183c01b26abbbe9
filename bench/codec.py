"""Writing plus reading a 2.6 KB request, against betterproto2's own way in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp


def request() -> NetworkServiceRequest:
    """A request on its way back: five segments with tokens of 350 bytes and metrics."""
    segments = [
        PathSegment(
            name=f"segment-{number}",
            id=f"0b6d-{number}",
            token="t" * 350,
            expires=Timestamp(seconds=1_790_000_000 + number, nanos=123_456_789),
            metrics={"client_interface": "KERNEL/nsm-1", "server_interface": "KERNEL/nsm-2"},
        )
        for number in range(5)
    ]
    addresses = IpContext(
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.0.0.0/32"],
        src_routes=[Route(prefix="10.0.0.0/32")],
        dst_routes=[Route(prefix="10.0.0.1/32")],
    )
    mechanism = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1", "inodeURL": "inode://4/4026532"})
    connection = Connection(
        id="client-0",
        network_service="icmp-responder",
        mechanism=mechanism,
        context=ConnectionContext(ip_context=addresses),
        labels={"nodeName": "node-1"},
        path=Path(index=1, path_segments=segments),
        network_service_endpoint_name="endpoint-1",
        payload="IP",
    )
    return NetworkServiceRequest(connection=connection, mechanism_preferences=[codec.clone(mechanism)])


def ratio(rounds: int = 40) -> float:
    """How many times faster the codec is: the median over alternating rounds."""
    message = request()
    data = bytes(message)
    ratios = []
    for _ in range(rounds):
        theirs = _seconds(lambda: (bytes(message), NetworkServiceRequest.parse(data)))
        ours = _seconds(lambda: (codec.encode(message), codec.decode(NetworkServiceRequest, data)))
        ratios.append(theirs / ours)
    return statistics.median(ratios)


def _seconds(work: Callable[[], object], times: int = 20) -> float:
    """Of the processor: what else the machine does takes none of it."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return time.process_time() - begin
