"""Which forwarder a manager asks."""

import pytest

from nsm.apis.connection import State
from nsm.apis.registry import Match, Metadata, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import TRANSPORT, Begin, Chain, Element, NotFound, TimedOut, Unavailable
from nsm.chains.elements.discover_forwarder import DiscoverForwarder
from nsm.chains.testing import Fail, Record, call
from tests.chains.elements.paths import path
from tests.chains.elements.records import SERVICE, nse, registry_of
from tests.chains.elements.selection import Answers, Target, service, within


def forwarders(*records, fail=None):
    probe = Record()
    services = registry_of(
        SERVICE,
        NetworkService(name="gpu", matches=[Match(metadata=Metadata(labels={"gpu": "true"}))]),
        NetworkService(name="plain", matches=[Match()]),
    )
    element = DiscoverForwarder(services, registry_of(*records), forwarder_service="forwarder", own_url="tcp://me:1")
    return Chain([Begin(), element, probe, fail or Fail()]), probe


async def test_a_forwarder_of_this_node_is_used_and_kept():
    own = [nse(name, "forwarder", "tcp://me:1", p2p="true") for name in ("f1", "f2")]
    fail = Fail()
    chain, probe = forwarders(*own, nse("other", "forwarder", "tcp://them:1", p2p="true"), fail=fail)
    fail.errors = [Unavailable("f1 is down")]
    await chain.request(call(service="svc"))
    await chain.request(call(service="svc"))
    assert len(probe.requests) == 3
    fail.errors = [Unavailable("down"), Unavailable("down")]
    with pytest.raises(Unavailable, match="all forwarders have failed: f1: .*; f2: "):
        await chain.request(call("d", service="svc"))
    await chain.close(call())
    assert len(probe.closes) == 1


async def test_the_forwarder_of_the_path_comes_first_and_labels_select():
    plain, gpu = (
        nse("f1", "forwarder", "tcp://me:1", p2p="true"),
        nse("f2", "forwarder", "tcp://me:1", gpu="true", p2p="true"),
    )
    chain, probe = forwarders(plain, gpu)
    seen = []

    class Target(Element):
        async def request(self, call, rest):
            seen.append(call.target)
            return await rest.request(call)

    await chain.request(call("a", service="gpu"))
    assert len(probe.requests) == 1
    chain, probe = forwarders(
        nse("f1", "forwarder", "unix:///tcp://me:1/f1", p2p="true"),
        nse("f2", "forwarder", "unix:///tcp://me:1/f2", p2p="true"),
    )
    await chain.request(call("b", service="svc", path=path("client", "nsmgr", "f2", index=1)))
    assert probe.last.target.endswith("f2")
    chain, _ = forwarders(nse("f1", "forwarder", "tcp://me:1"))
    with pytest.raises(NotFound, match="no forwarder of this node fits network service 'plain'"):
        await chain.request(call("c", service="plain"))


async def test_a_forwarder_that_went_away_is_named_until_the_client_reselects():
    fail = Fail()
    own = [nse(name, "forwarder", "tcp://me:1") for name in ("f1", "f2")]
    chain, probe = forwarders(*own, fail=fail)
    await chain.request(call(service="svc"))
    endpoints = chain.elements[1]._endpoints.elements[0].records
    endpoints.pop("f1")
    await chain.request(call(service="svc"))  # it is there, and nobody is asked whether it is
    fail.errors = [Unavailable("cannot reach it", element=TRANSPORT)]
    with pytest.raises(NotFound, match="forwarder 'f1' is not available"):
        await chain.request(call(service="svc"))
    await chain.request(call(service="svc", state=State.RESELECT_REQUESTED))
    assert len(probe.closes) == 1


async def test_while_the_only_forwarder_of_a_node_is_away_there_is_nothing_to_choose_anew():
    """Clients ask again until it is back, and their wires are as they were."""
    fail = Fail()
    chain, _ = forwarders(nse("f1", "forwarder", "tcp://me:1"), fail=fail)
    await chain.request(call(service="svc"))
    chain.elements[1]._endpoints.elements[0].records.pop("f1")
    fail.errors = [Unavailable("cannot reach it", element=TRANSPORT)]
    with pytest.raises(Unavailable, match="forwarder 'f1' is not available, and this node has no other"):
        await chain.request(call(service="svc"))


FORWARDERS = [
    nse("vpp", "forwarder", "unix:///tcp://me:1/vpp", p2p="true", dataplane="vpp"),
    nse("sriov", "forwarder", "unix:///tcp://me:1/sriov", dataplane="sriov"),
]


@pytest.mark.parametrize(
    ("matches", "labels", "chosen"),
    [
        ([], {}, "vpp"),
        ([Match()], {}, "vpp"),
        ([Match(metadata=Metadata(labels={"dataplane": "sriov"}))], {}, "sriov"),
        ([Match(metadata=Metadata(labels={"dataplane": "{{.dataplane}}"}))], {"dataplane": "sriov"}, "sriov"),
        (
            [
                Match(source_selector={"fast": "yes"}, metadata=Metadata(labels={"dataplane": "sriov"})),
                Match(metadata=Metadata(labels={"dataplane": "vpp"})),
            ],
            {"fast": "no"},
            "vpp",
        ),
        (
            [
                Match(fallthrough=True, metadata=Metadata(labels={"dataplane": "smartnic"})),
                Match(metadata=Metadata(labels={"dataplane": "sriov"})),
            ],
            {},
            "sriov",
        ),
    ],
    ids=["no match", "no metadata", "metadata", "template", "source selector", "fallthrough"],
)
async def test_labels_of_the_metadata_choose_the_forwarder(matches, labels, chosen):
    probe = Record()
    element = DiscoverForwarder(
        registry_of(service(*matches)),
        registry_of(*FORWARDERS),
        forwarder_service="forwarder",
        own_url="tcp://me:1",
    )
    await Chain([Begin(), element, probe]).request(call(service="svc", labels=labels))
    assert probe.last.target.endswith(chosen)


async def test_a_forwarder_that_hangs_leaves_time_for_the_others():
    answers = Answers(f1=1000, f2=0)
    forwarders = [nse(name, "forwarder", f"unix:///tcp://me:1/{name}", p2p="true") for name in ("f1", "f2")]
    element = DiscoverForwarder(
        registry_of(service()), registry_of(*forwarders), forwarder_service="forwarder", own_url="tcp://me:1"
    )
    chain = Chain([Begin(), element, answers])
    await chain.request(within(4))
    assert [name.rpartition("/")[2] for name, _ in answers.asked] == ["f1", "f2"]
    answers.behaviour["f2"] = TimedOut("too late")
    with pytest.raises(TimedOut, match="too late"):
        await chain.request(within(4))
    assert answers.asked[2:] == [("unix:///tcp://me:1/f2", 4)]


async def test_metadata_without_labels_asks_for_a_point_to_point_forwarder():
    """On the wire, labels that are empty and labels that are missing are the same."""
    forwarders = [
        NetworkServiceEndpoint(
            name=name,
            network_service_names=["forwarder"],
            network_service_labels={"forwarder": NetworkServiceLabels(labels=labels)},
            url=f"tcp://me:1/{name}",
        )
        for name, labels in (("other", {"sriov": "true"}), ("own", {"p2p": "true"}))
    ]
    services = registry_of(NetworkService(name="svc", matches=[Match(metadata=Metadata())]))
    end = Target()
    element = DiscoverForwarder(services, registry_of(*forwarders), forwarder_service="forwarder", own_url="tcp://me:1")
    await Chain([Begin(), element, end]).request(call("a", service="svc"))
    assert end.targets == ["tcp://me:1/own"]
