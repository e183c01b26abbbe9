"""Chains, errors, tasks."""

import asyncio

import pytest

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import (
    Call,
    Chain,
    Element,
    Found,
    InvalidRequest,
    MeshError,
    NotFound,
    RegistryCall,
    RegistryChain,
    RegistryElement,
    RegistryPath,
    Tasks,
    from_status,
    shielded,
    tracing,
)


class Says(Element):
    def __init__(self, word, said):
        self.word, self.said = word, said

    async def request(self, call, rest):
        self.said.append(self.word)
        connection = await rest.request(call)
        self.said.append(self.word.upper())
        return connection


async def test_elements_run_in_their_order_and_back():
    said = []
    await Chain([Says("a", said), Element(), Says("b", said)]).request(Call(NetworkServiceRequest()))
    assert said == ["a", "b", "B", "A"]


def test_an_element_that_leaves_a_method_out_is_not_on_its_way():
    class End:
        async def request(self, call): ...
        async def close(self, call): ...

    end = End()
    assert Chain([Element(), Says("a", [])], end).close == end.close


async def test_an_error_names_its_element_and_the_hops_that_it_passed():
    """It reads as one line at the client, also after it crossed the wire twice."""

    class Discover(Element):
        async def request(self, call, rest):
            raise NotFound('no endpoint of "icmp"\n matches labels {}')

    with pytest.raises(NotFound) as raised:
        await Chain([Says("a", []), Discover()]).request(Call(NetworkServiceRequest()))
    error = raised.value
    error.passed("forwarder")
    at_manager = from_status(error.code, str(error))
    at_manager.raised_in("connect")
    at_manager.passed("nsmgr node-1")
    at_client = from_status(at_manager.code, str(at_manager))
    assert isinstance(at_client, NotFound)
    assert str(at_client) == 'nsmgr node-1 → forwarder: no endpoint of "icmp" matches labels {} (discover)'


def test_errors_of_other_programs_are_kept_as_they_are_and_say_whose_they_are():
    error = from_status(2, "rpc error: something: else", "spiffe://mesh/nse")
    assert type(error) is MeshError
    assert str(error) == "spiffe://mesh/nse answered: rpc error: something: else"
    error.raised_in("transport")
    error.passed("forwarder")
    assert str(error) == "forwarder: spiffe://mesh/nse answered: rpc error: something: else (transport)"
    at_client = from_status(error.code, str(error))
    assert (at_client.hops, at_client.element) == (("forwarder",), "transport")
    assert "status 99" in str(from_status(99, ""))


async def test_spans_are_opened_around_elements_when_tracing_is_on():
    from contextlib import contextmanager

    opened, said, told = [], [], []

    class Hooks:
        @contextmanager
        def span(self, name):
            opened.append(name)
            yield

        def describe(self, call, answer):
            told.append((call.connection.id, answer))

    tracing.enable(Hooks())
    try:
        chain = Chain([Says("a", said)])
    finally:
        tracing.enable(None)
    answer = await chain.request(Call(NetworkServiceRequest(connection=Connection(id="c"))))
    assert (opened, told) == (["says.Request"], [("c", answer)])


async def test_a_registry_chain_streams_batches_through_its_elements():
    class Doubles(RegistryElement):
        async def find(self, call, rest):
            async for batch in rest.find(call):
                yield [*batch, *batch]

    class End:
        async def find(self, call):
            yield [Found("x")]

        async def register(self, call): ...
        async def unregister(self, call): ...

    batches = [batch async for batch in RegistryChain([Doubles()], End()).find(RegistryCall(None))]
    assert batches == [[Found("x"), Found("x")]]


def test_the_registry_path_is_read_in_any_case_and_written_as_others_do():
    path = RegistryPath.from_metadata('{"index":1,"PathSegments":[{"Token":"a"},{"token":"b"}]}')
    assert path == RegistryPath(1, ["a", "b"])
    assert path.to_metadata() == '{"Index":1,"PathSegments":[{"token":"a"},{"token":"b"}]}'
    assert RegistryPath().to_metadata() == '{"Index":0,"PathSegments":null}'
    with pytest.raises(InvalidRequest, match="'path'"):
        RegistryPath.from_metadata("[]")


async def test_shielded_work_ends_before_the_cancellation_is_raised():
    done = []

    async def work():
        await asyncio.sleep(1)
        done.append(True)

    task = asyncio.ensure_future(shielded(work(), name="work"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_shielded_work_passes_on_what_it_raises():
    async def fails():
        raise NotFound("x")

    with pytest.raises(NotFound):
        await shielded(fails(), name="fails")


async def test_tasks_end_with_their_owner_even_if_a_library_swallows_the_first_cancellation():
    stubborn = []

    async def swallows():
        while len(stubborn) < 2:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                stubborn.append(True)

    async with Tasks("test") as tasks:
        tasks.spawn(swallows(), name="swallows")
        await asyncio.sleep(0)
    assert len(tasks) == 0
    assert len(stubborn) == 2


async def test_a_task_that_fails_is_logged_and_its_siblings_go_on(capsys):
    async with Tasks("owner") as tasks:
        sibling = tasks.spawn(asyncio.sleep(10), name="sibling")

        async def fails():
            raise ValueError("boom")

        await asyncio.wait([tasks.spawn(fails(), name="failing")])
        await asyncio.sleep(1)
        assert not sibling.done()
    assert "boom" in capsys.readouterr().out


def test_an_error_of_characters_that_no_terminal_shows_is_no_longer_than_any_other():
    """Each of them becomes an escape of up to ten characters, and errors travel in headers."""
    error = NotFound("\U0010ffff" * 10_000)
    assert len(error.detail) <= 1024
    assert error.detail.startswith("\\U0010ffff\\U0010ffff")
    assert error.detail.isprintable()
