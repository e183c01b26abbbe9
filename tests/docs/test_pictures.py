"""The drawings: they stand for themselves, and say what the code does."""

import re

import pytest

from nsm.chains.composed import nsmgr
from nsm.chains.elements.connect import Connect
from nsm.chains.forwarding.tunnels import VXLAN_OVERHEAD, WIREGUARD_OVERHEAD
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


@pytest.mark.parametrize(
    ("picture", "overhead"), [("packet-vxlan", VXLAN_OVERHEAD), ("packet-wireguard", WIREGUARD_OVERHEAD)]
)
def test_the_headers_of_a_drawn_packet_are_what_the_mtu_leaves_room_for(picture, overhead):
    text = (PICTURES / f"{picture}.svg").read_text()
    assert sum(map(int, re.findall(r'class="bytes" [^>]*>(\d+)<', text))) == overhead[4]
    assert re.search(rf"{overhead[4]} bytes out of the underlay's MTU; {overhead[6]} with IPv6", text)
    assert f"up to {1500 - overhead[4]}<" in text


def test_the_table_of_mechanisms_has_the_numbers_of_the_code():
    page = (ROOT / "docs" / "mechanisms.md").read_text()
    (vxlan, wireguard) = (f"{each[4]} / {each[6]}" for each in (VXLAN_OVERHEAD, WIREGUARD_OVERHEAD))
    assert f"| none | none | {vxlan} | {wireguard} | none |" in page
    for mtu in (1500, 9000):
        left = [f"{mtu - each[4]} / {mtu - each[6]}" for each in (VXLAN_OVERHEAD, WIREGUARD_OVERHEAD)]
        assert f"| {left[0]} | {left[1]} |" in page
