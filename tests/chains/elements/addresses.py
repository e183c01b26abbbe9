"""Requests for tests of addresses: what a client brings, and what it gets."""

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call


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
