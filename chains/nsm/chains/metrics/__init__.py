"""A component's metrics: for Prometheus at ``/metrics``, and sent to a collector by OTLP.

Figures are those of `nsm.chains.core.counts`, and what a component reads elsewhere: it adds that by `also`.
"""

from .readings import Read, also, families
from .served import metrics

__all__ = ["Read", "also", "families", "metrics"]
