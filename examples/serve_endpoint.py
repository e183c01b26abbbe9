"""Runs the endpoint of custom_endpoint.py as a process: on a socket of its own, registered at the node's manager."""

import sys
from dataclasses import dataclass

from custom_endpoint import counting_endpoint

from nsm.chains.config import address_groups, items, text, variable
from nsm.chains.core import Element
from nsm.chains.serving import EndpointConfig, run_endpoint


@dataclass(frozen=True, kw_only=True)
class Config(EndpointConfig):
    name: str = variable("counter", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[str, ...] = variable("counting", items, "the services to provide")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("10.9.0.0/24", address_groups, "addresses to give out")


def chain(config: Config) -> list[Element]:
    return counting_endpoint(config.cidr_prefix)


if __name__ == "__main__":
    sys.exit(run_endpoint("counter", Config, chain, sys.argv[1:]))
