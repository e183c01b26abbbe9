"""A process of uid 65534 that asks for a wire in a network namespace that it was handed: it tells how that went.

``python -m tests.hostile.gives_a_namespace SOCKET AUTHORITY-FILE SPIFFE-PATH NAMESPACE [as-root]``; the socket is in
the working directory, which others may not be able to get to.
"""

import asyncio
import os
import sys

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - the other user may not be able to read it later

from nsm.chains.core import MeshError
from nsm.chains.transport import wire
from nsm.services.identity.authority_file import authority_at

from .attacker import Attacker, inode_url_of
from .mesh import Target


async def ask(target, workload, namespace, handed):
    wire.open_to_send = lambda _path: os.dup(handed)
    async with Attacker(target, workload) as giver:
        try:
            made = await giver.request(giver.connection("given"), giver.kernel("given0", namespace), files=[""])
            print("taken")
            await giver.close(made)
        except MeshError as error:
            print(error)


def main(name, authority, path, namespace, *words):
    handed, url = os.open(namespace, os.O_PATH), inode_url_of(namespace)
    target = Target({"nsmgr": f"unix:{name}"}, {}, authority_at(authority, words[0]), "")
    if "as-root" not in words:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    asyncio.run(ask(target, path, url, handed))


if __name__ == "__main__":
    main(*sys.argv[1:])
