"""What kustomizations make, without a cluster."""

import functools
import subprocess

import yaml

from tests.cluster import binary

CARDS = """\
physicalFunctions:
  0000:3b:00.0: {pfKernelDriver: igb, vfKernelDriver: igbvf, capabilities: [10G], serviceDomains: [worker.domain]}
"""


@functools.cache
def built(folder):
    """What a kustomization makes; not to be changed."""
    words = [binary.programs() / "kubectl", "kustomize", folder]
    return list(yaml.safe_load_all(subprocess.run(words, capture_output=True, check=True, timeout=30).stdout))
