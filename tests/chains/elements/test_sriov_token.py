"""Tokens of clients and endpoints: which connection uses which, and what others see of it."""

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Exhausted, InvalidRequest, Unavailable
from nsm.chains.elements.sriov_token import SriovTokenClient, SriovTokenServer

NAME = "worker.domain/10G"
TOKENS = tuple(f"sriov-{n:08d}-0000-0000-0000-000000000000" for n in range(2))


class Far(Element):
    """Chooses the first preference, and notes what it was asked."""

    def __init__(self):
        self.seen, self.fails = [], False

    async def request(self, call, rest):
        self.seen.append(codec.clone(call.request))
        if self.fails:
            raise Unavailable("not now")
        if call.connection.mechanism is None and call.request.mechanism_preferences:
            call.connection.mechanism = codec.clone(call.request.mechanism_preferences[0])
        return await rest.request(call)


def asked(identity, kind="VFIO", mechanism=None, **labels):
    connection = Connection(id=identity, labels={"app": "a", **labels}, mechanism=mechanism)
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=[Mechanism(type=kind)]))


def client(tokens):
    far = Far()
    return Chain([Begin(), SriovTokenClient(tokens), far]), far


async def test_endpoints_see_the_domain_and_the_client_keeps_its_label():
    chain, far = client({NAME: TOKENS})
    connection = await chain.request(asked("a", sriovToken=NAME))
    (seen,) = far.seen
    assert seen.connection.labels == {"app": "a", "serviceDomain": "worker.domain"}
    assert seen.mechanism_preferences[0].parameters == {"tokenID": TOKENS[0]}
    assert connection.labels == {"app": "a", "sriovToken": NAME}


async def test_a_connection_keeps_its_token_and_each_has_one_of_its_own():
    chain, far = client({NAME: TOKENS})
    for identity in ("a", "b", "a"):
        await chain.request(asked(identity, sriovToken=NAME))
    ids = [each.mechanism_preferences[0].parameters["tokenID"] for each in far.seen]
    assert ids == [TOKENS[0], TOKENS[1], TOKENS[0]]
    with pytest.raises(Exhausted, match=f"no free SR-IOV token '{NAME}'; this process has 2 of {NAME}: raise"):
        await chain.request(asked("c", sriovToken=NAME))
    await chain.close(asked("b", sriovToken=NAME))
    await chain.request(asked("c", sriovToken=NAME))
    assert far.seen[-1].mechanism_preferences[0].parameters["tokenID"] == TOKENS[1]


async def test_a_continued_connection_uses_the_token_that_its_mechanism_names():
    chain, far = client({NAME: TOKENS})
    mechanism = Mechanism(type="VFIO", parameters={"tokenID": TOKENS[1]})
    await chain.request(asked("a", mechanism=mechanism, sriovToken=NAME))
    assert far.seen[0].connection.mechanism.parameters == {"tokenID": TOKENS[1]}


async def test_a_failed_request_leaves_label_and_token_as_they_were():
    chain, far = client({NAME: TOKENS[:1]})
    far.fails = True
    call = asked("a", sriovToken=NAME)
    with pytest.raises(Unavailable):
        await chain.request(call)
    assert call.connection.labels == {"app": "a", "sriovToken": NAME}
    far.fails = False
    await chain.request(asked("b", sriovToken=NAME))


async def test_connections_without_the_label_pass_unchanged():
    chain, far = client({NAME: TOKENS})
    connection = await chain.request(asked("a", "KERNEL"))
    assert (connection.labels, far.seen[0].mechanism_preferences[0].parameters) == ({"app": "a"}, {})


@pytest.mark.parametrize("name", ["10G", "/10G", "worker.domain/"])
async def test_a_label_that_is_no_name_says_how_one_looks(name):
    chain, _ = client({NAME: TOKENS})
    with pytest.raises(InvalidRequest, match="expected SERVICE-DOMAIN/CAPABILITY, such as worker.domain/10G"):
        await chain.request(asked("a", sriovToken=name))


async def test_a_pod_without_tokens_is_told():
    chain, _ = client({})
    with pytest.raises(Exhausted, match="this process has none at all: raise the pod's limit of worker.domain/10G"):
        await chain.request(asked("a", sriovToken=NAME))


def endpoint(tokens):
    return Chain([Begin(is_last=True), SriovTokenServer(tokens)])


async def answer(chain, identity, kind="KERNEL", **parameters):
    call = asked(identity, mechanism=Mechanism(type=kind, parameters=parameters))
    return (await chain.request(call)).mechanism.parameters.get("tokenID")


async def test_an_endpoints_only_token_is_for_all_its_connections():
    chain = endpoint({NAME: TOKENS[:1]})
    assert [await answer(chain, each) for each in "ab"] == [TOKENS[0]] * 2


async def test_of_several_tokens_each_connection_has_one():
    chain = endpoint({NAME: TOKENS})
    assert [await answer(chain, each) for each in "aba"] == [TOKENS[0], TOKENS[1], TOKENS[0]]
    with pytest.raises(Exhausted, match="all 2 SR-IOV tokens of this endpoint are in use"):
        await answer(chain, "c")
    await chain.close(asked("a"))
    assert await answer(chain, "c") == TOKENS[0]


async def test_other_mechanisms_and_tokens_that_are_there_stay():
    chain = endpoint({NAME: TOKENS})
    assert await answer(chain, "a", "NOOP") is None
    assert await answer(chain, "b", tokenID="mine") == "mine"
    assert await answer(endpoint({}), "c") is None


def test_tokens_of_several_names_are_refused_at_the_start():
    with pytest.raises(InvalidRequest, match="tokens of several names: a/b, c/d; expected one"):
        SriovTokenServer({"a/b": TOKENS, "c/d": TOKENS})
