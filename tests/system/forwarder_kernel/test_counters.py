"""What has passed a wire, as Prometheus reads it: names, sides, TLS, and what becomes of it in the end."""

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
import urllib.request
from contextlib import asynccontextmanager
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.dataplane import LIVE
from nsm.chains.forwarding.traffic_figures import traffic
from nsm.chains.metrics import also, metrics
from nsm.chains.serving.forwarder import ForwarderConfig
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import Host, wire

pytestmark = pytest.mark.system

LABELS = {
    "connection_id": "c",
    "network_service": "icmp",
    "nsc": "client",
    "nsc_interface": "nsm-1",
    "nse_interface": "nse-1",
}


class Makes(Element):
    """Makes a wire between two namespaces."""

    def __init__(self, dataplane, client, endpoint):
        self.dataplane, self.wire = dataplane, wire(client, endpoint)

    async def request(self, call, rest):
        if call.live.get(LIVE) is None:
            call.live.put(LIVE, await self.dataplane.create(self.wire, call.live.connection_id))
        return await rest.request(call)

    async def close(self, call, rest):
        await self.dataplane.remove(call.live.pop(LIVE).connection_id)


def call():
    path = Path(index=1, path_segments=[PathSegment(name="client", id="0"), PathSegment(name="forwarder", id="c")])
    connection = Connection(id="c", network_service="icmp", path=path, mechanism=Mechanism(type="KERNEL"))
    return Call(NetworkServiceRequest(connection=connection))


@asynccontextmanager
async def exported(counters, port, **fields):
    """Serve the metrics of a forwarder with these counters."""
    config = ForwarderConfig(prometheus=True, prometheus_listen_on=("127.0.0.1", port), **fields)
    with also(partial(traffic, counters)):
        async with metrics(config):
            yield


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def samples(port, scheme="http", context=None):
    """Value by name and labels, asked for until it is served."""

    def ask():
        with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/metrics", context=context, timeout=5) as answer:
            return answer.read().decode()

    async with asyncio.timeout(10):
        while True:
            try:
                text = await asyncio.to_thread(ask)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                await asyncio.sleep(0.05)
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


@pytest.fixture
async def parts():
    client, endpoint, dataplane = Host(), Host(), Dataplane("forwarder")
    counters = Counters(dataplane)
    yield client, Chain([Begin(), counters, Makes(dataplane, client, endpoint)]), counters
    await dataplane.aclose()
    for host in (client, endpoint):
        os.close(host.descriptor)


async def test_what_the_client_sent_came_to_the_forwarder_and_went_to_the_endpoint(parts):
    client, chain, counters = parts
    port = free_port()
    async with exported(counters, port, prometheus_metrics_prefix="mesh"):
        await chain.request(call())
        await chain.request(call())  # a refresh counts nothing twice
        before = await samples(port)
        client.run("ping", "-n", "-c", "3", "-i", "0.2", "-s", "1000", "10.0.0.0")
        after = await samples(port)

        def grown(name):
            key = f"mesh_{name}_total", tuple(sorted(LABELS.items()))
            return after[key] - before[key]

        packets = [grown(f"{side}_{way}_packets") for side in ("client", "server") for way in ("rx", "tx")]
        assert packets == [3, 3, 3, 3]
        assert grown("client_rx_bytes") == grown("server_tx_bytes") == 3 * (1000 + 8 + 20 + 14)
        assert grown("client_drops") == grown("server_drops") == 0
        assert ("mesh_process_resident_memory_bytes", ()) in after
        await chain.close(call())
        assert not [key for key in await samples(port) if "connection_id" in dict(key[1])]
        assert len(counters) == 0


async def test_a_wire_whose_namespace_is_gone_is_left_out(parts):
    client, chain, counters = parts
    await chain.request(call())
    client.run("ip", "link", "del", "nsm-1")
    assert await counters.read() == []
    await chain.close(call())


def certificate(folder, name, issuer=None):
    """Files of a certificate and its key, and what a next one needs to be issued by it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer, signing = issuer or (subject, key)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(signing, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return subject, key


async def test_with_authorities_only_those_may_ask_who_have_a_certificate_of_theirs(parts, tmp_path):
    _, chain, counters = parts
    issuer = certificate(tmp_path, "ca")
    for name in ("server", "asker"):
        certificate(tmp_path, name, issuer)
    port = free_port()
    files = {
        "prometheus_cert_file": str(tmp_path / "server.pem"),
        "prometheus_key_file": str(tmp_path / "server.key"),
        "prometheus_ca_file": str(tmp_path / "ca.pem"),
    }
    await chain.request(call())
    async with exported(counters, port, **files):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.load_cert_chain(tmp_path / "asker.pem", tmp_path / "asker.key")
        assert any(name == "client_rx_packets_total" for name, _ in await samples(port, "https", context))
        stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
            await samples(port, "https", stranger)
    await chain.close(call())


async def test_a_port_that_is_taken_is_tried_for_again(parts, capsys):
    _, _, counters = parts
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with exported(counters, port):
            await asyncio.sleep(0.3)
            taken.close()
            assert await samples(port)
