"""An endpoint in a chain of services that passes everything on, unchanged: a template for others, and for tests."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed import passthrough
from nsm.chains.config import text, variable
from nsm.chains.serving import ChainedConfig, serve_endpoint


@dataclass(frozen=True, kw_only=True)
class NsePassthroughConfig(ChainedConfig):
    """The settings of the endpoint."""

    name: str = variable("passthrough-server", text, "the endpoint's name; unique in the mesh")


def main(arguments: list[str]) -> int:
    """An endpoint that joins its client with the next endpoint of the service."""
    return run("nse-passthrough", NsePassthroughConfig, pass_on, arguments)


async def pass_on(config: NsePassthroughConfig, runtime: Runtime) -> None:
    """Serve until the process is asked to stop."""
    elements = passthrough(
        config.name,
        runtime.pool,
        url=config.connect_to,
        labels=config.labels,
        policies=config.client_policies,
        limits=config.limits,
    )
    await serve_endpoint(config, runtime, elements)
