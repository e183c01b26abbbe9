"""What peers of a forwarder answer, and a forwarder that asks nobody else."""

import base64

from nsm.apis import codec
from nsm.apis.connection import Mechanism
from nsm.chains.composed import forwarder as composed
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.forwarding.vxlan import vxlan
from nsm.chains.forwarding.wireguard import wireguard
from nsm.chains.policy import NO_TRUST

KEY = base64.b64encode(bytes([9, *bytes(31)])).decode()
GOOD = {
    "KERNEL": {"name": "nsm-1", "inodeURL": "file:///proc/self/ns/net"},
    "VXLAN": {"src_ip": "172.16.9.9", "src_port": "4789", "MTU": "1400"},
    "WIREGUARD": {"src_ip": "172.16.9.9", "src_port": "51820", "src_public_key": KEY, "MTU": "1400"},
}


def changed(connection, changes):
    copy = codec.clone(connection)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


class Answers:
    """The far end of a client's chain: answers with what it is told to."""

    def __init__(self):
        self.changes = {}

    async def request(self, call):
        answer = changed(call.connection, self.changes)
        if answer.mechanism is None:
            answer.mechanism = Mechanism(
                cls="LOCAL", type="KERNEL", parameters={"name": "far", "inodeURL": "file:///proc/self/ns/net"}
            )
        return answer

    async def close(self, call): ...


def forwarder_with(plane, identity, pool, far, own, monkeypatch, **options):
    """A forwarder of the node with the address `own`, and `far` where it would call others."""
    monkeypatch.setattr(composed, "RemoteNetworkService", lambda *_, **__: far)
    trust = options.get("trust", NO_TRUST)
    tunnels = [vxlan(own, plane, trust), wireguard(own, plane, trust)]
    return composed.forwarder(
        "forwarder", identity, pool, plane, [kernel(), *tunnels], nsmgr_url="unix:///nowhere", **options
    )
