"""The golden cases: inputs with the answers that other implementations of NSM give to them.

`NSM_GOLDEN=FOLDER pytest tests/golden` runs the cases of another folder.
"""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("NSM_GOLDEN") or Path(__file__).parent / "data")


def cases(name):
    """One parameter for each line of `name`.jsonl."""
    lines = (FOLDER / f"{name}.jsonl").read_text().splitlines()
    assert lines, f"{name}.jsonl has no cases"
    return [pytest.param(json.loads(line), id=f"{name}-{number}") for number, line in enumerate(lines, 1)]
