"""Serves the Workload API on a socket to the pods of JSON, until its standard input ends.

SOCKET {"name": {"uid": .., "qos": .., "containers": [..]}}; the pod `self` is the one that this is in.
"""

import asyncio
import json
import sys

from nsm.chains.identity import Authority
from nsm.chains.transport import SocketAccess, serve_plain
from nsm.kube import connect
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.issuer import Issuer
from nsm.services.identity.pods import PodIdentities, Pods
from tests.kube.stand_in import stand_in


async def main(socket, pods):
    async with stand_in() as server:
        for name, pod in pods.items():
            statuses = [{"containerID": each} for each in pod["containers"]]
            path = f"/api/v1/namespaces/shop/pods/{name}"
            server.put(path, status={"qosClass": pod["qos"], "containerStatuses": statuses})
            server.at(path)["metadata"]["uid"] = pod["uid"]
        async with connect(server.url) as api, Pods(api, "node-1") as known:
            who = PodIdentities(known, "test.mesh", own=("shop", "self"))
            issuer = Issuer(Authorities([Authority.create("test.mesh")]), who.identify)
            async with serve_plain(socket, issuer.methods(socket), name="identity", access=SocketAccess()):
                print("ready", flush=True)
                await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
