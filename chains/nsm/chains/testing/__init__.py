"""What tests of elements, chains and endpoints need; docs/testing.md shows it at work.

| | |
| --- | --- |
| `Record`, `Fail`, `Delay`, `Check` | probes: elements that note, fail, hold up, or look at what passes |
| `call`, `endpoint_record` | messages in a line |
| `Mesh` | a registry, a manager and a forwarder in memory, around endpoints and clients of yours |
| `Network` | the transport of that: components of one process call each other without sockets |
| `identity_of` | an identity without a Workload API |
| `VirtualTimeLoop` | an event loop whose clock jumps; `nsm.chains.testing.plugin` has pytest run coroutines by it |
| `wall_clock` | the time of day goes on with that clock |
"""

from .calls import call, endpoint_record
from .clock import VirtualTimeLoop, wall_clock
from .identity import identity_of
from .mesh import Mesh
from .network import MemoryPool, Network
from .probes import Check, Delay, Fail, Record

__all__ = [
    "Check",
    "Delay",
    "Fail",
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
