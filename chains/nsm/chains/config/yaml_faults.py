"""What is wrong with a YAML document, as one ValueError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 500
"""Characters of a fault: it quotes the document."""


@contextmanager
def yaml_faults() -> Iterator[None]:
    """Around a call of PyYAML: whatever that raises of a document becomes a ValueError of one line."""
    import yaml  # noqa: PLC0415 - most components never read any

    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:_LONGEST]) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (AttributeError, LookupError):  # of PyYAML, for a value such as `!!bool x`
        raise ValueError("a value is not what its tag says") from None
