"""Run by an ordinary user: becomes root in a user namespace of its own, starts a process, and says how that went."""

import asyncio

from nsm.chains.core import MeshError
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces


async def main():
    plane = Dataplane("forwarder")
    try:
        process = await plane._spares.take()
        print("made", process.name)
    except MeshError as error:
        print(error)
    finally:
        await plane.aclose()


namespaces.become_root_in_user_namespace()
namespaces.unshare(namespaces.NEW_NET | namespaces.NEW_MOUNT, "make namespaces")
asyncio.run(main())
