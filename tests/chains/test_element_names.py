"""The names of elements: errors and spans show them, so each names one element."""

import importlib
import pkgutil
from collections import defaultdict

import nsm.chains
import nsm.forwarder_kernel
import nsm.forwarder_vpp
import nsm.services
from nsm.chains.core import Element, RegistryElement
from nsm.chains.core.chain import element_name


def test_an_error_that_names_its_element_names_one_of_one_api():
    for package in (nsm.chains, nsm.forwarder_kernel, nsm.forwarder_vpp, nsm.services):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = defaultdict(set)
    for kind in (*Element.__subclasses__(), *RegistryElement.__subclasses__()):
        if kind.__module__.startswith("nsm."):
            found[element_name(kind)].add(f"{kind.__module__}.{kind.__qualname__}")
    assert len(found) > 60
    assert {name: kinds for name, kinds in found.items() if len(kinds) > 1} == {}
