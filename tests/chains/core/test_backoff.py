"""How long to wait before trying again: the one rule of all that tries again."""

import ast
from itertools import pairwise
from pathlib import Path

from nsm.chains.core import Backoff

ROOT = Path(__file__).parents[3]


def test_pauses_grow_to_a_limit_and_begin_anew_after_a_success():
    backoff = Backoff(0.1, 1.0)
    pauses = [backoff.next() for _ in range(10)]
    for pause, base in zip(pauses, [0.1, 0.2, 0.4, 0.8, *[1.0] * 6], strict=True):
        assert base <= pause <= 1.2 * base
    backoff.reset()
    assert backoff.next() <= 0.12


def test_a_factor_may_be_smaller_than_two():
    backoff = Backoff(1.0, 100.0, factor=1.25)
    pauses = [backoff.next() for _ in range(8)]
    assert all(later < 1.25 * 1.2 * before + 0.001 for before, later in pairwise(pauses))
    assert pauses[-1] > 4


def test_a_thousand_clients_of_a_peer_that_restarted_do_not_come_back_at_once():
    assert len({Backoff(1.0).next() for _ in range(1000)}) > 100


def test_a_pause_that_doubles_is_written_in_no_other_place():
    """`pause = min(2 * pause, LONGEST)` has no jitter, and is what `Backoff` is for."""
    found = []
    for part in ("chains", "services", "forwarder-kernel", "webhook"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                    names = {each.id for each in node.targets if isinstance(each, ast.Name)}
                    used = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
                    if (
                        "min" in used
                        and names & (used - {"min"})
                        and any("pause" in name or "wait" in name for name in names)
                    ):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
