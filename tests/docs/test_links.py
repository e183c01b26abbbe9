"""Links between the pages, and from them into the repository."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, name_of, without_blocks

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_links_to_is_there(page):
    """Files and headings; addresses on the web are not asked."""
    missing = []
    for target in _LINK.findall(without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        known = file.is_relative_to(ROOT) and file.exists()
        if not known or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


def test_every_page_can_be_reached_from_the_readme():
    """What nobody links to nobody reads."""
    readme = ROOT / "README.md"
    linked = {(readme.parent / target.partition("#")[0]).resolve() for target in _LINK.findall(readme.read_text())}
    assert {page for page in PAGES if page != readme} <= linked
