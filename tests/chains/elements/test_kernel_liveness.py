"""What one check of a wire costs, whatever its endpoint says of it."""

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.elements import kernel_liveness
from nsm.chains.elements.kernel_liveness import KernelLiveness


async def test_an_endpoint_with_many_addresses_does_not_have_its_client_open_thousands_of_sockets(monkeypatch):
    """Each pair of addresses is a socket and up to four echoes, five times a second."""
    asked = []

    async def answers(source, target, interface, timeout):
        asked.append((source, target))
        return True

    monkeypatch.setattr(kernel_liveness, "answers", answers)
    sides = {
        "src_ip_addrs": [f"10.1.0.{number}/32" for number in range(64)],
        "dst_ip_addrs": [f"10.2.0.{number}/32" for number in range(64)],
    }
    mechanism = Mechanism(type="KERNEL", parameters={"name": "nsm-1"})
    wire = Connection(id="c", mechanism=mechanism, context=ConnectionContext(ip_context=IpContext(**sides)))
    assert await KernelLiveness(1.0).is_alive(wire)
    assert len(asked) == len(set(asked)) == 64
