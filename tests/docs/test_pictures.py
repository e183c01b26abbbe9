"""The drawings: they stand for themselves, and say what the code does."""

import re

from nsm.chains.composed import nsmgr
from nsm.chains.elements.connect import Connect
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool
from tests.docs.pages import ROOT

PICTURES = ROOT / "docs" / "pictures"


def test_pictures_need_nothing_from_elsewhere():
    """They are shown by whoever shows the page: no scripts, no fonts, no images to load."""
    pictures = sorted(PICTURES.glob("*.svg"))
    assert pictures
    for picture in pictures:
        text = picture.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"<script|<image|href=|url\(h|https?://|@import", text), picture.name


def test_the_picture_of_a_manager_s_chains_has_its_elements_in_their_order():
    identity = identity_of(Authority.create("test.mesh"), "nsmgr")
    manager = nsmgr("nsmgr", identity, Pool(identity), own_url="unix:///nsmgr", registry_url=None)
    server = manager.connections.chain.elements
    (connect,) = (element for element in server if isinstance(element, Connect))
    drawn = re.findall(r'class="name" [^>]*>(\w+)<', (PICTURES / "chain.svg").read_text())
    assert drawn == [type(element).__name__ for element in (*server, *connect._client.elements)]
