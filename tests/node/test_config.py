"""What an operator may set on a host, what is refused, and what its parts receive."""

import pytest

from nsm.chains.config import ConfigError, load
from nsm.chains.core import InvalidRequest
from nsm.chains.policy import IdPatterns
from nsm.forwarder_kernel.main import KernelConfig
from nsm.node import main
from nsm.node.config import NodeConfig, entries_below, part_of
from nsm.node.joining import join
from nsm.node.state import State
from nsm.services.nsmgr.main import NsmgrConfig

from .domain import domain, new_key

NODE = "spiffe://test.mesh/node/edge-1"


def config(**environment):
    return load(NodeConfig, {"NSM_JOIN": "test.mesh", **environment}).config


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"NSM_JOIN": ""}, "nsm node --join DOMAIN"),
        ({"NSM_JOIN_TOKEN": "a", "NSM_JOIN_TOKEN_FILE": "b"}, "set one of them"),
        ({"NSM_LISTEN_ON": "tcp://:5001"}, "expected one unix socket"),
        ({"NSM_LISTEN_ON": "unix:///a,unix:///b"}, "expected one unix socket"),
        ({"NSM_PROXY_LISTEN_ON": "unix:///a"}, "NSM_PROXY_LISTEN_ON: expected a tcp:// address"),
        ({"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:1"}, "expected a unix socket"),
        ({"SPIFFE_ENDPOINT_SOCKET": "agent"}, "expected unix:///path"),
        ({"NSM_ENTRIES": "uid:0=spiffe://test.mesh/nsmgr"}, "cannot be a workload's name"),
        ({"NSM_ENTRIES": "uid:0=../edge-2"}, "cannot be a workload's name"),
        ({"NSM_ENTRIES": "user:me=shop"}, "not a valid selector"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_starts(environment, told):
    with pytest.raises(ConfigError, match=told):
        config(**environment)


def test_workloads_have_names_below_the_node_s():
    entries = entries_below(NODE, ("uid:1000=shop", "socket:/run/a=team/store"))
    assert entries.by_uid == {1000: f"{NODE}/shop"}
    assert entries.by_socket == {"/run/a": f"{NODE}/team/store"}


def test_parts_share_what_is_set_for_the_node():
    shared = config(NSM_MAX_TOKEN_LIFETIME="5m", NSM_RECONCILE="report", NSM_SERVICE_LIFETIME="1h")
    manager, forwarder = part_of(shared, NsmgrConfig), part_of(shared, KernelConfig, connect_to=shared.local_url)
    assert manager.max_token_lifetime == forwarder.max_token_lifetime == 300
    assert (manager.service_lifetime, forwarder.reconcile) == (3600, "report")
    assert forwarder.connect_to == "unix:///var/lib/networkservicemesh/nsm.io.sock"


async def test_what_the_domain_tells_its_nodes_completes_the_configuration(tmp_path):
    async with domain(tmp_path) as made:
        membership = await join(made.token(), new_key())
        found = await main._completed(config(), membership)
        own = await main._completed(
            config(NSM_REGISTRY_URL="tcp://198.51.100.1:5002", NSM_INTERMEDIARIES="/mine", NSM_NAME="one"), membership
        )
    assert (found.name, found.node_name, found.registry_url) == ("edge-1", "edge-1", "tcp://192.0.2.1:5002")
    assert found.intermediaries == IdPatterns(["spiffe://test.mesh/nsmgr", NODE])
    assert found.registration_policy.refuses(f"{NODE}/shop", ["forwarder"]) == "forwarder"
    assert found.registration_policy.refuses(NODE, ["forwarder"]) is None
    assert found.listen_on == ("unix:///var/lib/networkservicemesh/nsm.io.sock", "tcp://127.0.0.1:5001")
    assert (found.proxy_listen_on, str(found.tunnel_ip)) == ("tcp://127.0.0.1:5004", "127.0.0.1")
    assert (own.name, own.registry_url) == ("one", "tcp://198.51.100.1:5002")
    assert own.intermediaries == IdPatterns(["spiffe://test.mesh/mine", NODE])


async def test_a_host_joins_once_and_comes_back_without_a_token(tmp_path):
    state = State(str(tmp_path / "host"))
    async with domain(tmp_path) as made:
        (tmp_path / "token").write_text(f"{made.token()}\n")
        first = await main._member_of(config(NSM_JOIN_TOKEN_FILE=str(tmp_path / "token")), state)
    again = await main._member_of(config(), state)
    assert again.svid.leaf == first.svid.leaf
    assert again.settings == first.settings


async def test_a_host_does_not_change_its_domain_by_itself(tmp_path):
    state = State(str(tmp_path / "host"))
    async with domain(tmp_path) as made:
        await main._member_of(config(NSM_JOIN_TOKEN=str(made.token())), state)
        with pytest.raises(InvalidRequest, match=r"is a node of 'test.mesh', not of 'other.mesh'.*NSM_STATE_FOLDER"):
            await main._member_of(config(NSM_JOIN="other.mesh"), state)


async def test_a_token_of_another_domain_is_not_used(tmp_path):
    async with domain(tmp_path) as made:
        token, state = made.token(), State(str(tmp_path / "host"))
        with pytest.raises(InvalidRequest, match="the join token is of domain 'test.mesh', not of 'other.mesh'"):
            await main._member_of(config(NSM_JOIN="other.mesh", NSM_JOIN_TOKEN=str(token)), state)
        assert (await join(token, new_key())).node == "edge-1"


async def test_a_host_without_a_token_is_told_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(main.sys, "stdin", None)
    with pytest.raises(InvalidRequest, match=r"has not joined yet: `nsm identity token NODE`.*NSM_JOIN_TOKEN_FILE"):
        await main._member_of(config(), State(str(tmp_path)))
    with pytest.raises(InvalidRequest, match=r"NSM_JOIN_TOKEN_FILE='/none': No such file"):
        await main._member_of(config(NSM_JOIN_TOKEN_FILE="/none"), State(str(tmp_path)))


async def test_a_host_that_was_off_for_too_long_is_told_so_and_joins_again(tmp_path, monkeypatch):
    monkeypatch.setattr(main.sys, "stdin", None)
    state = State(str(tmp_path / "host"))
    async with domain(tmp_path, lifetime=0.0) as made:
        await main._member_of(config(NSM_JOIN_TOKEN=str(made.token())), state)
        with pytest.raises(InvalidRequest, match="expired while it was off"):
            await main._member_of(config(), state)
        assert (await main._member_of(config(NSM_JOIN_TOKEN=str(made.token())), state)).node == "edge-1"


def test_the_token_is_no_argument(capsys):
    assert main.main(["--join", "test.mesh", "join://edge-1:secret"]) == 2
    assert "not an argument" in capsys.readouterr().err
