"""Translates the ends of tunnels between domains."""

from nsm.apis.connection import Mechanism
from nsm.chains.core import Chain
from nsm.chains.elements.swap_addresses import SwapClientAddresses, SwapServerAddresses
from nsm.chains.testing import Check, call
from nsm.chains.testing.domains import Table

NEAR, FAR = Table({"10.0.0.1": "203.0.113.1"}), Table({"10.0.0.9": "203.0.113.9"})


def tunnel(**parameters):
    return Mechanism(cls="REMOTE", type="VXLAN", parameters=parameters)


def end(address, seen):
    """What a forwarder at the far end does."""

    def answer(made):
        mechanism = made.connection.mechanism or made.request.mechanism_preferences[0]
        seen.append(dict(mechanism.parameters))
        mechanism.parameters["dst_ip"] = address
        made.connection.mechanism = mechanism

    return Check(answer)


async def test_both_ends_are_translated_by_their_own_domain_and_get_back_what_they_sent():
    seen = []
    chain = Chain(
        [
            SwapServerAddresses(NEAR),
            SwapClientAddresses(NEAR),
            SwapServerAddresses(FAR),
            SwapClientAddresses(FAR),
            end("10.0.0.9", seen),
        ]
    )
    answer = await chain.request(call(preferences=[tunnel(src_ip="10.0.0.1", vni="5")]))
    expected = {"src_ip": "10.0.0.1", "dst_ip": "203.0.113.9", "orig_dst_ip": "10.0.0.9", "vni": "5"}
    assert answer.mechanism.parameters == expected
    again = await chain.request(call(mechanism=answer.mechanism))  # a refresh
    assert again.mechanism.parameters == expected
    assert seen == [{"src_ip": "203.0.113.1", "orig_src_ip": "10.0.0.1", "vni": "5"}] * 2


async def test_an_address_that_no_table_has_stays():
    seen = []
    chain = Chain([SwapServerAddresses(Table()), SwapClientAddresses(Table()), end("10.0.0.8", seen)])
    answer = await chain.request(call(preferences=[tunnel(src_ip="10.0.0.7")]))
    assert answer.mechanism.parameters == {"src_ip": "10.0.0.7", "dst_ip": "10.0.0.8"}
    assert seen == [{"src_ip": "10.0.0.7", "orig_src_ip": "10.0.0.7"}]


async def test_mechanisms_without_addresses_stay_as_they_are():
    chain = Chain([SwapServerAddresses(NEAR), SwapClientAddresses(NEAR)])
    vlan = Mechanism(cls="REMOTE", type="VLAN", parameters={"vlan-id": "7"})
    assert (await chain.request(call(mechanism=vlan))).mechanism.parameters == {"vlan-id": "7"}


async def test_what_upstream_s_proxy_answers_with_empty_addresses_is_kept():
    def answer(made):
        made.connection.mechanism = tunnel(src_ip="203.0.113.1", orig_src_ip="", dst_ip="", orig_dst_ip="")

    chain = Chain([SwapServerAddresses(NEAR), SwapClientAddresses(NEAR), Check(answer)])
    got = await chain.request(call(preferences=[tunnel(src_ip="10.0.0.1")]))
    assert got.mechanism.parameters == {"src_ip": "10.0.0.1", "dst_ip": "", "orig_dst_ip": ""}
