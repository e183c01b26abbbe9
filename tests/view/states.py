"""States of a view as managers and registries would report them."""

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connection import State as Liveness
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.view.state import State

MANAGER = "tcp://10.0.0.1:5001"


def connection(number=0, client="till", state=Liveness.UP):
    """A wire as the manager of its client's node has it."""
    names = [client, "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "shop-7"]
    segments = [PathSegment(name=name, id=f"{name}-{number}") for name in names]
    segments[2].metrics = {"server_interface": "KERNEL/nsm-1", "client_interface": "VXLAN/unknown"}
    segments[5].metrics = {"server_interface": "KERNEL/shop-1"}
    return Connection(
        id=segments[1].id,
        network_service="shop",
        network_service_endpoint_name="shop-7",
        mechanism=Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": f"nsm-{number}"}),
        path=Path(index=1, path_segments=segments),
        state=state,
        labels={"app": "till"},
    )


def small_mesh(wires=1):
    """A state with one node, one service, and wires of one client."""
    state = State()
    state.watch_manager(MANAGER, "my.mesh", "node-1")
    state.watch_registry("tcp://10.0.0.1:5002", "my.mesh")
    labels = {"shop": NetworkServiceLabels(labels={"nodeName": "node-2", "site": "a"})}
    state.records.put_service(NetworkService(name="shop", payload="IP"), "my.mesh")
    state.records.put_endpoint(
        NetworkServiceEndpoint(
            name="shop-7", network_service_names=["shop"], network_service_labels=labels, url="tcp://10.0.0.2:5001"
        ),
        "my.mesh",
    )
    for name, node in (("forwarder-1", "node-1"), ("forwarder-2", "node-2")):
        state.records.put_endpoint(
            NetworkServiceEndpoint(
                name=name,
                network_service_names=["forwarder"],
                network_service_labels={"forwarder": NetworkServiceLabels(labels={"nodeName": node})},
                url=MANAGER.replace("0.1:", f"0.{node[-1]}:"),
            ),
            "my.mesh",
        )
    state.manager_alive(MANAGER)
    state.begin(MANAGER)
    state.complete(MANAGER)
    for number in range(wires):
        state.report(MANAGER, connection(number))
    return state
