"""Records for tests of elements, and a registry that has them."""

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import RegistryChain
from nsm.chains.registry.memory import Memory

SERVICE = NetworkService(name="svc", payload="IP")


def registry_of(*records):
    memory = Memory()
    for record in records:
        memory.records.put(record)
    return RegistryChain([memory])


def nse(name, service="svc", url=None, **labels):
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[service],
        network_service_labels={service: NetworkServiceLabels(labels=labels)} if labels else {},
        url=url or f"tcp://{name}:1",
    )
