"""Drawings: valid SVG, the same bytes each time, readable without colour, on a phone, and on a dark page."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from alexnet_repro.verify.report import plots
from tests.helpers.drawings import SVG, case, every_kind, texts

pytestmark = pytest.mark.filterwarnings("error")  # such as that of a layout that found no room
ANOTHER_PROCESS = """
import sys, matplotlib
from tests.helpers import drawings
matplotlib.rcParams.update({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": "other", "lines.linewidth": 9})
print("".join(each.svg for each in drawings.every_kind()), end="")
assert matplotlib.rcParams["font.size"] == 30 and "matplotlib.pyplot" not in sys.modules
"""


@pytest.fixture(scope="module")
def everything():
    """Every kind of drawing."""
    return every_kind()


def test_drawings_are_xml_that_loads_nothing(everything):
    """Each is XML whose root is an SVG; none has a script, an image, or an address other than XML's own names."""
    assert len(everything) == 2 + 8 + 3
    for drawing in everything:
        root = ET.fromstring(drawing.svg)
        assert root.tag == f"{SVG}svg"
        tags = {each.tag.removeprefix(SVG) for each in root.iter()}
        assert tags <= {"svg", "defs", "style", "g", "path", "text", "use", "clipPath", "rect", "pattern"}
        assert set(re.findall(r"https?://[^\"]*", drawing.svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_same_bytes_in_another_process(everything):
    """The same numbers give the same bytes elsewhere, whatever the user's backend and settings; these stay."""
    environment = {**os.environ, "MPLBACKEND": "pdf", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", ANOTHER_PROCESS]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout == "".join(each.svg for each in everything)


def test_matplotlib_is_imported_to_draw():
    """Importing the report doesn't import Matplotlib: drawing does."""
    code = "import sys, alexnet_repro.verify.report.page; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_ids_differ_between_drawings(everything):
    """Drawings stand side by side on one page: no id is in two of them, and each that is used is there."""
    seen = set()
    for drawing in everything:
        ids = set(re.findall(r' id="([^"]+)"', drawing.svg))
        used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', drawing.svg))
        assert {first or second for first, second in used} <= ids
        assert not ids & seen
        seen |= ids


def test_drawings_can_be_read_on_a_phone(everything):
    """Every letter is at least 16 CSS pixels high, 12 points, and no drawing is wider than 328 pixels, 246 points."""
    for drawing in everything:
        sizes = re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", drawing.svg)
        assert min(map(float, sizes)) >= 12
        assert float(ET.fromstring(drawing.svg).get("width").removesuffix("pt")) <= 246


def test_forged_names_are_text():
    """Names from a file are neither markup, nor mathematics, nor paths; two that look alike are two files."""
    forged = "</text><script>alert(1)</script>$\\frac{1}$"
    cases = [case("../../forward", f"1-{forged}", forged, device, images=1) for device in (forged, forged + "!")]
    drawn = plots.throughput(cases)
    assert len({each.name for each in drawn}) == 2
    for each in drawn:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert "<script" not in each.svg
        assert any(forged in text for text in texts(each))


def test_drawings_have_the_colours_of_the_page(everything):
    """On a page, each colour is the page's own, light or dark; in a file of its own, it is a colour on white."""
    for drawing in everything:
        assert not re.findall(r"(?:fill|stroke)[=:] ?\"?(?:#|black|white)", drawing.inline)
        assert set(re.findall(r"var\(--([a-z0-9]+)\)", drawing.inline)) <= {
            *("plot", "band", "hatch", "paper", "float32", "tf32", "bfloat16", "float16")
        }
        assert "var(" not in drawing.standalone
        assert "currentColor" not in drawing.standalone
        assert re.fullmatch(r"2[0-9]{2}(\.[0-9]+)?pt", drawing.width)
