"""The process around an endpoint's chain: it listens, registers, reports its health, unregisters.

    @dataclass(frozen=True, kw_only=True)
    class Config(EndpointConfig):
        name: str = variable("shop", text, "the endpoint's name; unique in the mesh")
        service_names: tuple[str, ...] = variable("shop", items, "the services to provide")

    def chain(config: Config) -> list[Element]:
        return [Point2PointIpam(["10.8.0.0/24"]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]

    if __name__ == "__main__":
        sys.exit(run_endpoint("shop", Config, chain, sys.argv[1:]))

A component that composes its server itself, as a forwarder does, reads a `RegisteredConfig` and calls
`serve_registered`. An endpoint in a chain of services reads a `ChainedConfig` and serves the elements of
`nsm.chains.composed.passthrough`.
"""

from .config import ChainedConfig, EndpointConfig, ProviderConfig, RegisteredConfig, payload, services
from .provided import Provided
from .serve import run_endpoint, serve_endpoint, serve_registered

__all__ = [
    "ChainedConfig",
    "EndpointConfig",
    "Provided",
    "ProviderConfig",
    "RegisteredConfig",
    "payload",
    "run_endpoint",
    "serve_endpoint",
    "serve_registered",
    "services",
]
