"""A firewall's rules in the kernel: what they say passes, changes at once, and is counted."""

import os
import shutil

import pytest
from structlog.testing import capture_logs

from nsm.chains.core import MeshError
from nsm.chains.netlink.namespaces import entered
from nsm.services import nft
from nsm.services.nse_firewall.firewall import Count, Firewall
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.system

RULES = """
default: deny
rules:
  - {name: ping, action: allow, protocol: 1}
  - {name: web, action: allow, protocol: tcp, ports: [8080, 8000-8090], to: [10.0.0.0/8, 10.0.0.0/24]}
  - {name: from the lab, action: deny, from: ["fd00::/8", 192.168.0.0/16], direction: both}
  - {name: others, action: allow, source_ports: [53], protocol: udp, direction: to-client}
"""


@pytest.fixture
def stage():
    """This thread is in a namespace that bridges a client and a service, as a pass-through endpoint does."""
    client, service, stage = Host(), Host(), Host()
    stage.run("ip", "link", "add", "br-1", "type", "bridge")
    for name, host, address in (("in-1", client, "10.0.0.1"), ("out-1", service, "10.0.0.2")):
        stage.run("ip", "link", "add", name, "type", "veth", "peer", "w-1", "netns", host.path)
        stage.run("ip", "link", "set", name, "master", "br-1", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "w-1")
        host.run("ip", "link", "set", "w-1", "up")
    stage.run("ip", "link", "set", "br-1", "up")
    stage.client, stage.service = client, service
    with entered(stage.descriptor):
        yield stage
    for host in (client, service, stage):
        os.close(host.descriptor)


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "rules.yaml"
    made.write_text(RULES)
    return made


async def test_rules_hold_from_the_start_and_are_counted(stage, file):
    firewall = Firewall(str(file))
    await firewall.open()
    assert stage.client.pings("10.0.0.2")
    assert not stage.service.pings("10.0.0.1")
    counts = {count.rule: count for count in await firewall.counts()}
    assert counts["ping"].packets == 2  # the request, and the answer
    assert counts["others"] == Count("others", 0, 0)
    assert counts["(others)"].packets > 0  # the ping of the service
    assert counts["web"].packets == 0


async def test_a_file_that_changes_is_in_force_at_once_and_a_bad_one_changes_nothing(stage, file):
    firewall = Firewall(str(file))
    await firewall.open()
    before = {count.rule: count.packets for count in await firewall.counts()}
    assert stage.client.pings("10.0.0.2")
    file.write_text(RULES.replace("action: allow, protocol: 1}", "action: deny, protocol: 1}"))
    await firewall.reload()
    assert not stage.client.pings("10.0.0.2")
    counts = {count.rule: count.packets for count in await firewall.counts()}
    assert counts["ping"] == before["ping"] + 3  # it goes on counting
    file.write_text(RULES.replace("tcp", "tpc"))
    with capture_logs() as logs:
        await firewall.reload()
        await firewall.reload()
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert f"{file}:5: protocol 'tpc': expected tcp, udp, sctp, icmp or a number up to 255" in warning["error"]
    assert not stage.client.pings("10.0.0.2")
    file.unlink()
    await firewall.reload()
    assert not stage.client.pings("10.0.0.2")
    file.write_text(RULES)
    await firewall.reload()
    assert stage.client.pings("10.0.0.2")


async def test_a_firewall_without_rules_that_can_be_used_does_not_start(file, stage):
    """It would pass everything."""
    file.write_text("rules:\n  - {name: a, action: perhaps}")
    with pytest.raises(MeshError, match=r"rules.yaml:2: action 'perhaps': expected allow or deny"):
        await Firewall(str(file)).open()
    with pytest.raises(MeshError, match="missing.yaml cannot be read: No such file or directory"):
        await Firewall(str(file.with_name("missing.yaml"))).open()


async def test_nftables_that_is_not_installed_is_named(monkeypatch, file, stage):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MeshError, match="the program nft is missing; install the package nftables"):
        await Firewall(str(file)).open()


async def test_a_transaction_that_nftables_refuses_changes_nothing(stage):
    table = {"add": {"table": {"family": "inet", "name": "t"}}}
    with pytest.raises(nft.NftError, match="nftables refuses the rules"):
        await nft.change([table, {"add": {"chain": {"family": "inet", "table": "none", "name": "c"}}}])
    with pytest.raises(nft.NftError):
        await nft.read("table", "inet", "t")
