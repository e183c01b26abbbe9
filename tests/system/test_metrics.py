"""A forwarder's metrics, asked for as Prometheus does."""

from contextlib import ExitStack

import pytest

from .node import Node

pytestmark = pytest.mark.system


def test_the_forwarder_serves_metrics_when_it_is_told_to(tmp_path):
    with ExitStack() as stack:
        listening = {"forwarder": {"NSM_PROMETHEUS_LISTEN_ON": "127.0.0.1:8081", "PROMETHEUS": "true"}}
        node = Node(stack, tmp_path, of=listening)
        node.start_all()
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/metrics', timeout=5).read().decode())"
        text = node.host.run("python3", "-c", ask)
        assert 'network_service="icmp",nsc="client",nsc_interface="nsm-1"' in text
        assert "# TYPE server_drops_total counter" in text
        node.stop("client")
        assert "nsm-1" not in node.host.run("python3", "-c", ask)
        node.stop("forwarder")
