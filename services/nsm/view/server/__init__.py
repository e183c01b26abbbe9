"""A view's HTTP server: REST, a stream of changes, upstream's dashboard, metrics, the page."""

from .app import application
from .serve import serving

__all__ = ["application", "serving"]
