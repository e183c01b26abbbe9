"""Requests for tests of addresses: what a client brings, and what it gets."""

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.strict_ipam import StrictIpam


async def ask(chain, connection_id="c", **ip):
    context = ConnectionContext(ip_context=IpContext(**ip))
    request = NetworkServiceRequest(connection=Connection(id=connection_id, context=context))
    return (await chain.request(Call(request))).context.ip_context


async def again(chain, context, connection_id="c", **changes):
    """A refresh: what was returned comes back, with some changes."""
    kept = codec.clone(context)
    for name, value in changes.items():
        setattr(kept, name, value)
    request = NetworkServiceRequest(connection=Connection(id=connection_id, context=ConnectionContext(ip_context=kept)))
    return (await chain.request(Call(request))).context.ip_context


async def close(chain, connection_id="c"):
    await chain.close(Call(NetworkServiceRequest(connection=Connection(id=connection_id))))


def prefixes(routes):
    return [route.prefix for route in routes]


FORMER = {
    "src_ip_addrs": ["172.16.1.1/32"],
    "dst_ip_addrs": ["172.16.1.0/32"],
    "src_routes": [Route(prefix="172.16.1.0/32"), Route(prefix="192.168.0.0/16", next_hop="172.16.1.0")],
    "dst_routes": [Route(prefix="172.16.1.1/32"), Route(prefix="10.77.0.0/16")],
}
"""What a client brings from the endpoint that it was at before."""


def strict(*groups):
    ipams = [Point2PointIpam(group) for group in groups]
    return Chain([Begin(), *ipams, StrictIpam(ipams)])
