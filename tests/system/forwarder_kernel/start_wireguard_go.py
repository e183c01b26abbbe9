"""Run by an ordinary user: becomes root in a user namespace of its own, starts a process, and says how that went."""

import asyncio

from nsm.chains.core import MeshError
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces


async def main():
    plane = Dataplane("forwarder", in_node=True)
    try:
        await plane._programs.start("/proc/self/ns/net", 1440, "nsm forwarder c")
        print("made one")
    except MeshError as error:
        print(error)
    finally:
        await plane.aclose()


namespaces.become_root_in_user_namespace()
namespaces.unshare(namespaces.NEW_NET | namespaces.NEW_MOUNT, "make namespaces")
asyncio.run(main())
