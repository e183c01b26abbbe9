"""Tools for testing elements, chains and endpoints; docs/testing.md shows how to use them.

| | |
| --- | --- |
| `Record`, `Fail`, `Delay`, `Check` | probes: elements that record, fail, delay or check calls |
| `call`, `endpoint_record` | shortcuts for messages |
| `Mesh` | a registry, a manager and a forwarder in memory, for your endpoints and clients |
| `FakeDataplane` | wires in memory, for the elements of forwarders and for `Mesh` |
| `Network` | its transport: components in one process call each other without sockets |
| `identity_of` | an identity without a Workload API |
| `VirtualTimeLoop` | an event loop whose clock jumps; `nsm.chains.testing.plugin` makes pytest run coroutines on it |
| `wall_clock` | makes the time of day follow that clock |
"""

from .calls import call, endpoint_record
from .clock import VirtualTimeLoop, wall_clock
from .dataplane import FakeDataplane
from .identity import identity_of
from .mesh import Mesh
from .network import MemoryPool, Network
from .probes import Check, Delay, Fail, Record

__all__ = [
    "Check",
    "Delay",
    "Fail",
    "FakeDataplane",
    "MemoryPool",
    "Mesh",
    "Network",
    "Record",
    "VirtualTimeLoop",
    "call",
    "endpoint_record",
    "identity_of",
    "wall_clock",
]
