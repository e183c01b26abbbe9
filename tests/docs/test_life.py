"""The page on a wire's life: the tests that it names exist."""

import re

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "life.md"


def test_each_row_of_what_survives_what_names_a_test_that_there_is():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "`test_" in line]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    assert len(rows) == len(named) > 10
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
    }
    assert named <= there
