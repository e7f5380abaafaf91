"""The page of a fleet in a real browser, on a phone, a screen and paper; skipped where there is no Chromium."""

import pytest

from alexnet_repro.fleet.page import write_page
from tests.helpers.browser import needs_axe, needs_chromium, page_in_frame, printed_pages, violations
from tests.helpers.fleets import faulty_fleet, harmful_fleet, healthy_fleet, large_fleet

pytestmark = [pytest.mark.slow, needs_chromium]
FLEETS = {"healthy": healthy_fleet, "faulty": faulty_fleet, "large": large_fleet, "harmful": harmful_fleet}


def written(folder, fleet):
    """Write a fleet's page, and return it."""
    return write_page(FLEETS[fleet](), folder).read_text()


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("fleet", FLEETS)
def test_page_fits(tmp_path, fleet, width):
    """Whatever nodes are named, nothing overflows sideways, no letter is below 16 pixels, each stop has an outline."""
    found = page_in_frame(tmp_path, written(tmp_path, fleet), width)
    assert found["overflow"] == 0
    assert found["smallest"] >= 15.99
    assert found["outlines"] == ["solid"]
    assert found["stops"][:2] == ["skip", "a"]
    assert set(found["stops"][2:]) <= {"div", "summary"}


@pytest.mark.parametrize(
    ("fleet", "width", "highest"),
    [
        pytest.param("healthy", 1280, 2000, id="fleet=healthy-width=1280"),
        pytest.param("healthy", 390, 2600, id="fleet=healthy-width=390"),
        pytest.param("faulty", 1280, 4000, id="fleet=faulty-width=1280"),
        pytest.param("faulty", 390, 5000, id="fleet=faulty-width=390"),
        pytest.param("large", 1280, 4800, id="fleet=large-width=1280"),
        pytest.param("large", 390, 9000, id="fleet=large-width=390"),
    ],
)
def test_page_is_short(tmp_path, fleet, width, highest):
    """Eight healthy nodes are two screens, and a thousand no more than six."""
    assert page_in_frame(tmp_path, written(tmp_path, fleet), width)["height"] <= highest


@pytest.mark.parametrize(("fleet", "pages"), [("healthy", 2), ("faulty", 3), ("large", 4)], ids=str)
@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_page_on_paper(tmp_path, fleet, pages, paper):
    """On paper a fleet is a few pages; what is folded isn't printed."""
    assert printed_pages(tmp_path, written(tmp_path, fleet), paper) <= pages


@needs_axe
@pytest.mark.parametrize("scheme", [0, 1], ids=["scheme=dark", "scheme=light"])
@pytest.mark.parametrize("folded", [True, False], ids="folded={}".format)
@pytest.mark.parametrize("fleet", ["faulty", "large"])
def test_page_is_accessible(tmp_path, fleet, folded, scheme):
    """axe-core finds no violation of its rules, WCAG 2.2's among them, in either scheme, folded and unfolded."""
    page = written(tmp_path, fleet)
    page = page if folded else page.replace("<details", "<details open")
    assert violations(tmp_path, page, scheme) == []
