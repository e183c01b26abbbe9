"""DNS of a wire: what an endpoint tells, and what a client's resolver hears of it."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, State
from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, DnsContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable, merge_with_returned, reselect_everything
from nsm.chains.elements.dns_context import DnsContextClient, DnsContextServer
from nsm.chains.testing import Fail

ONE = DnsConfig(dns_server_ips=["10.0.0.1"], search_domains=["one.test"])
TWO = DnsConfig(dns_server_ips=["10.0.0.2"])


def call(connection_id="c", *configs, **fields):
    context = ConnectionContext(dns_context=DnsContext(configs=[codec.clone(c) for c in configs])) if configs else None
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, context=context, **fields)))


class Resolver:
    def __init__(self):
        self.used, self.closed, self.calls = {}, False, 0

    async def use(self, connection_id, configs):
        self.calls += 1
        self.used[connection_id] = list(configs)

    async def forget(self, connection_id):
        self.used.pop(connection_id, None)

    async def aclose(self):
        self.closed = True


class Gives(Element):
    """An endpoint, as a client sees it."""

    def __init__(self, *configs):
        self.configs, self.failure = list(configs), None

    async def request(self, call, rest):
        if self.failure is not None:
            raise self.failure
        connection = await rest.request(call)
        connection.context = ConnectionContext(dns_context=DnsContext(configs=list(self.configs)))
        return connection

    async def close(self, call, rest):
        if self.failure is not None:
            raise self.failure
        await rest.close(call)


async def test_an_endpoint_adds_its_configurations_once_however_often_it_is_asked():
    chain = Chain([Begin(), DnsContextServer([ONE, TWO])])
    first = await chain.request(call())
    assert first.context.dns_context.configs == [ONE, TWO]
    again = await chain.request(call("c", *first.context.dns_context.configs))
    assert again.context.dns_context.configs == [ONE, TWO]


async def test_what_others_told_before_comes_first_and_stays():
    other = DnsConfig(dns_server_ips=["192.0.2.1"])
    connection = await Chain([Begin(), DnsContextServer([ONE])]).request(call("c", other, ONE))
    assert connection.context.dns_context.configs == [other, ONE]


async def test_connections_do_not_share_an_endpoint_s_configuration_object():
    chain = Chain([Begin(), DnsContextServer([ONE])])
    connection = await chain.request(call())
    connection.context.dns_context.configs[0].search_domains.append("else.test")
    assert (await chain.request(call("d"))).context.dns_context.configs == [ONE]


async def test_an_endpoint_without_configurations_adds_no_context():
    assert (await Chain([Begin(), DnsContextServer([])]).request(call())).context is None


async def test_a_client_uses_what_each_connection_brings_until_it_is_closed():
    resolver, gives = Resolver(), Gives(ONE)
    async with Chain([Begin(), DnsContextClient(resolver), gives]) as chain:
        await chain.request(call("a"))
        gives.configs = [TWO]
        await chain.request(call("b"))
        assert resolver.used == {"a": [ONE], "b": [TWO]}
        await chain.close(call("a"))
        assert resolver.used == {"b": [TWO]}
        assert not resolver.closed
    assert resolver.closed


async def test_a_refresh_may_change_the_servers_or_take_them_away():
    resolver, gives = Resolver(), Gives(ONE)
    chain = Chain([Begin(), DnsContextClient(resolver), gives])
    await chain.request(call())
    gives.configs = [ONE, TWO]
    await chain.request(call())
    assert resolver.used == {"c": [ONE, TWO]}
    gives.configs = []
    await chain.request(call())
    assert resolver.used == {"c": []}


async def test_a_connection_that_says_nothing_of_dns_does_not_touch_the_resolver():
    resolver = Resolver()
    chain = Chain([Begin(), DnsContextClient(resolver), Gives()])
    await chain.request(call())
    assert resolver.calls == 0


async def test_a_close_that_fails_further_on_is_forgotten_here_all_the_same():
    resolver, gives = Resolver(), Gives(ONE)
    chain = Chain([Begin(), DnsContextClient(resolver), gives])
    await chain.request(call())
    gives.failure = Unavailable("gone")
    with pytest.raises(Unavailable):
        await chain.close(call())
    assert resolver.used == {}


async def test_names_are_not_looked_up_over_a_wire_that_goes_however_long_that_takes():
    class Waits(Element):
        async def close(self, call, rest):
            assert resolver.used == {}
            await rest.close(call)

    resolver = Resolver()
    chain = Chain([Begin(), DnsContextClient(resolver), Waits(), Gives(ONE)])
    await chain.request(call())
    await chain.close(call())


async def test_a_first_request_that_fails_on_its_way_back_leaves_nothing_in_the_resolver():
    resolver = Resolver()
    chain = Chain([Begin(), Fail(Unavailable("on the way back"), behind=True), DnsContextClient(resolver), Gives(ONE)])
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert resolver.calls == 1
    assert resolver.used == {}


async def test_a_request_that_is_cancelled_while_the_resolver_starts_leaves_nothing():
    resolver, started = Resolver(), asyncio.Event()

    async def slow(connection_id, configs):
        resolver.used[connection_id] = configs
        started.set()
        await asyncio.sleep(60)

    resolver.use = slow
    chain = Chain([Begin(), DnsContextClient(resolver), Gives(ONE)])
    asking = asyncio.ensure_future(chain.request(call()))
    await started.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert resolver.used == {}


async def test_a_connection_that_is_selected_anew_brings_the_new_endpoint_s_servers():
    """Also when the mesh itself asks, whose store lives on; and its end ends those."""
    resolver, gives = Resolver(), Gives(ONE)
    begin = Begin(merge=merge_with_returned)
    chain = Chain([begin, DnsContextClient(resolver), gives])
    await chain.request(call())
    gives.configs = [TWO]
    await begin.stores()[0].events.request(reselect=reselect_everything)
    assert resolver.used == {"c": [TWO]}
    gives.configs = [ONE]
    await chain.request(call(state=State.RESELECT_REQUESTED))
    assert resolver.used == {"c": [ONE]}
    await chain.close(call())
    assert resolver.used == {}
