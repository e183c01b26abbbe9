"""Gives Services of type LoadBalancer their addresses; kube-proxy does the rest."""

import http.client
import sys
import time
from pathlib import Path

from . import identities, layout
from .api_server import Api


def serve(api, network):
    """Give each new one the next free address of `network`, forever."""
    while True:
        try:
            for event in api.watch("/api/v1/services"):
                service = event["object"]
                if event["type"] in ("ADDED", "MODIFIED") and service["spec"]["type"] == "LoadBalancer":
                    give(api, service, network)
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(1)  # the API server starts anew


def give(api, service, network):
    """Give a service an address, unless it has one."""
    if addresses(service):
        return
    taken = {each for other in api.get("/api/v1/services")["items"] for each in addresses(other)}
    free = next(each for each in map(str, network.hosts()) if each not in taken)
    about = service["metadata"]
    path = f"/api/v1/namespaces/{about['namespace']}/services/{about['name']}/status"
    api.patch(path, {"status": {"loadBalancer": {"ingress": [{"ip": free}]}}})


def addresses(service):
    return [each["ip"] for each in service["status"].get("loadBalancer", {}).get("ingress", [])]


def main(folder, where):
    api = Api(f"https://{where.control}:6443", identities.read(folder / "identities"), folder / "bin")
    serve(api, where.balancers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), layout.BY_NUMBER[int(sys.argv[2])])
