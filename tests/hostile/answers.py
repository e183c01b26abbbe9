"""What peers of a forwarder answer, and a dataplane that has tunnels on paper."""

import base64

from nsm.apis import codec
from nsm.apis.connection import Mechanism
from nsm.forwarder_kernel.tunnels import Underlay

from .components import Kernel

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


class Tunnels(Kernel):
    """A dataplane that has an underlay and WireGuard, on paper."""

    async def underlay(self, own, peer=None):
        return Underlay("eth0", 1500, own)

    async def free_udp_port(self, wanted, taken):
        return wanted

    async def check_wireguard(self): ...

    def former_vni(self, connection_id):
        return None

    async def former_wireguard(self, connection_id):
        return None

    def begin_wireguard(self, room, path, connection_id):
        raise AssertionError("nobody asks for it on the server's side")
