"""A workload's own VPP, and its end of a wire by memif."""

import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from nsm.forwarder_vpp.api import VPP
from nsm.forwarder_vpp.process import OwnVPP, Size

_UP = ["IF_STATUS_API_FLAG_ADMIN_UP"]


@contextlib.asynccontextmanager
async def own_vpp() -> AsyncIterator[VPP]:
    """A VPP in the network namespace of this process; it ends with the context."""
    with tempfile.TemporaryDirectory(prefix="vpp-") as folder:
        process = OwnVPP(Path(folder), Size(heap="64M", buffers=4096))
        await process.provide()
        async with await VPP.connect(process.api) as vpp:
            try:
                yield vpp
            finally:
                os.kill(vpp.process_id, signal.SIGKILL)


async def add_memif(vpp: VPP, socket: str, own: str, peer: str, *, is_master: bool) -> int:
    """A memif at an abstract socket, with the address `own` and a route to `peer`, such as 10.0.0.1/32."""
    name = f"abstract:{socket.removeprefix('@')}"
    number = (await vpp.call("memif_socket_filename_add_del_v2", is_add=True, socket_filename=name)).socket_id
    role = "MEMIF_ROLE_API_MASTER" if is_master else "MEMIF_ROLE_API_SLAVE"
    made = await vpp.call("memif_create_v2", role=role, mode="MEMIF_MODE_API_IP", socket_id=number)
    index = int(made.sw_if_index)
    await vpp.call("sw_interface_set_flags", sw_if_index=index, flags=_UP)
    await vpp.call("sw_interface_add_del_address", sw_if_index=index, is_add=True, prefix=own)
    path = {"sw_if_index": index, "weight": 1, "proto": "FIB_API_PATH_NH_PROTO_IP4"}
    await vpp.call("ip_route_add_del_v2", is_add=True, route={"prefix": peer, "paths": [path]})
    return index
