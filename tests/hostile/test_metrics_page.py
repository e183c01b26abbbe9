"""Whoever can reach a component's /metrics cannot keep Prometheus from it."""

import asyncio
import socket
import ssl
import urllib.request

import pytest

from nsm.chains.config import Common, load
from nsm.chains.metrics.exporter import exported
from nsm.webhook.own_certificate import issue_certificate
from tests.webhook.serving import DAY

ATTACKER = "127.0.0.66"


@pytest.fixture(params=["http", "https"])
async def page(request, tmp_path):
    """The URL of a page with metrics, and who trusts its certificate."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = issue_certificate("localhost", "x", DAY)
    (tmp_path / "pem").write_bytes(made.pem)
    environment = {"PROMETHEUS": "true", "NSM_PROMETHEUS_LISTEN_ON": f"127.0.0.1:{port}"}
    if request.param == "https":
        pem = str(tmp_path / "pem")
        environment |= {"NSM_PROMETHEUS_CERT_FILE": pem, "NSM_PROMETHEUS_KEY_FILE": pem}
    config = load(Common, environment).config
    context = ssl.create_default_context(cadata=made.authority)
    context.check_hostname = False
    async with exported(config):
        url = f"{request.param}://127.0.0.1:{port}/metrics"
        async with asyncio.timeout(5):
            while not await asyncio.to_thread(_reaches, port):
                await asyncio.sleep(0.01)
        yield url, port, context if request.param == "https" else None


def _reaches(port):
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def read(url, context):
    with urllib.request.urlopen(url, timeout=5, context=context) as answer:
        return answer.read().decode()


async def test_the_page_is_read_while_others_connect_and_say_nothing(page, capfd):
    url, port, context = page
    silent = [socket.create_connection(("127.0.0.1", port), source_address=(ATTACKER, 0)) for _ in range(60)]
    try:
        assert "process_cpu_seconds_total" in await asyncio.to_thread(read, url, context)
        silent[0].sendall(b"\x16\x03\x01nonsense\r\n\r\n" * 10)
        assert "process_cpu_seconds_total" in await asyncio.to_thread(read, url, context)
    finally:
        for each in silent:
            each.close()
    assert "process_cpu_seconds_total" in await asyncio.to_thread(read, url, context)
    assert "Traceback" not in "".join(capfd.readouterr())
