"""The report in a real browser, on a phone, a screen and paper; skipped where there is no Chromium."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path

import pytest

from tests.helpers.html_pages import FORGED, reported
from tests.helpers.results_files import CASE, DOUBTFUL, EVERYTHING, FAILED, WELL, WRONG, finding, run, timing

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = importlib.util.find_spec("axe_playwright_python")  # which has axe-core's own file; no browser of it is used
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and it runs"),
]
# In the page around the report's frame, whose own policy lets no script run.
MEASURE = """
const page = document.getElementById("page");
page.onload = () => {
  const inside = page.contentDocument, root = inside.documentElement;
  const seen = e => e.checkVisibility() && !e.closest(".hidden") && !e.closest(".skip");
  const sizes = [...inside.querySelectorAll("body *")].filter(e => seen(e) && [...e.childNodes].some(
    n => n.nodeType === 3 && n.data.trim() && e.getClientRects().length))
    .map(e => parseFloat(inside.defaultView.getComputedStyle(e).fontSize) *
      (e.ownerSVGElement ? e.getScreenCTM().a : 1));
  const stops = [...inside.querySelectorAll("a[href], summary, [tabindex]")].filter(
    e => e.checkVisibility()).map(e => e.className === "skip" ? "skip" : e.tagName.toLowerCase());
  const outlines = [...inside.querySelectorAll("a[href], summary, [tabindex]")].filter(e => e.checkVisibility()).map(
    e => { e.focus({focusVisible: true}); return inside.defaultView.getComputedStyle(e).outlineStyle; });
  document.body.dataset.found = JSON.stringify({overflow: root.scrollWidth - root.clientWidth, title: inside.title,
    smallest: Math.min(...sizes), heading: inside.querySelector("h1").innerText, height: root.scrollHeight,
    stops: [...new Set(stops)], outlines: [...new Set(outlines)],
    hints: [...inside.querySelectorAll(".hint")].filter(e => e.checkVisibility()).length});
};
"""
NOISY = [
    finding(**DOUBTFUL)
    | {"check": "speed", "device": "cpu:0", "fix": "run it alone: pytest benchmarks --update-reference # when idle"}
    | {"case": CASE.replace("32-", f"{number}-"), "message": "it is too noisy to judge " * 4, "evidence": "noise " * 30}
    for number in range(18)
]
ONES = [{**WRONG, "check": f"check{number}", "fix": f"see to it: nvidia-smi -q -i {number}"} for number in range(9)]
CASES = [
    timing(f"{kind}[device=cpu:0-batch={batch}-precision={precision}]", precision=precision, bytes=10**10)
    for kind in ("forward", "train_step", "evaluate")
    for batch in (1, 32, 128)
    for precision in ("float32", "mixed_bfloat16")
]
TYPICAL = run(fast=[WELL] * 80, timings=CASES) | {"calibrations": EVERYTHING["calibrations"]}
BAD = run(verdict="FAIL", correct=ONES, reference=NOISY, timings=CASES)


def chromium(folder, *options):
    """Run Chromium, and return what it prints."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def measured(folder, content, width):
    """Return what a page is, in a frame of that width: windows have a least width, frames have none."""
    page, *_ = reported(folder, content)
    wrapper = folder / "wrapper.html"
    frame = f'<iframe id="page" style="border:0;width:{width}px;height:844px" srcdoc="{html.escape(page)}"></iframe>'
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>{MEASURE}</script>')
    dom = chromium(folder, "--dump-dom", f"file://{wrapper}")
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize(
    ("content", "verdict"),
    [pytest.param(FAILED, "✗ FAIL", id="verdict=FAIL"), pytest.param(EVERYTHING, "✓ PASS", id="verdict=PASS")],
)
def test_page_in_a_browser(tmp_path, width, content, verdict):
    """On a phone and on a screen, the verdict is there, nothing overflows sideways, no letter is below 16 pixels."""
    content = {**deepcopy(content), "timings": [*content["timings"], timing("forward[batch=1]" + "x" * 80)]}
    content["findings"]["correct"].append({**finding(**WELL), "message": FORGED, "fix": "y" * 300})
    found = measured(tmp_path, content, width)
    assert found["overflow"] == 0
    assert found["title"] == f"{verdict[2:]}: alexnet-repro"
    assert found["heading"] == verdict
    assert found["smallest"] >= 15.99
    assert found["hints"] == (1 if width < 768 else 0)  # above the timings, that tables scroll


@pytest.mark.parametrize(
    ("content", "width", "highest"),
    [
        pytest.param(TYPICAL, 1280, 2300, id="run=typical-width=1280"),
        pytest.param(TYPICAL, 390, 3700, id="run=typical-width=390"),
        pytest.param(BAD, 1280, 4200, id="run=bad-width=1280"),
        pytest.param(BAD, 390, 6000, id="run=bad-width=390"),
    ],
)
def test_page_is_short(tmp_path, content, width, highest):
    """A run of 18 timings is three screens, on a phone five; one with 27 findings, of ten things to do, some more."""
    assert measured(tmp_path, content, width)["height"] <= highest


def test_page_by_keyboard(tmp_path):
    """The first stop leads past the contents; then come links, tables that scroll, and what folds, each outlined."""
    found = measured(tmp_path, BAD, 1280)
    assert found["stops"] == ["skip", "a", "div", "summary"]
    assert found["outlines"] == ["solid"]


def test_link_opens_its_section(tmp_path):
    """The address of a folded section, as the contents have it, opens that section and no other."""
    *_, paths = reported(tmp_path, BAD)
    dom = chromium(tmp_path, "--dump-dom", f"file://{paths[0]}#machine")
    assert re.findall(r'<details open="">.*?<div id="(\w+)"', dom, re.DOTALL) == ["machine"]


@pytest.mark.parametrize(
    ("content", "pages"), [pytest.param(TYPICAL, 1, id="run=typical"), pytest.param(BAD, 2, id="run=bad")]
)
@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_page_on_paper(tmp_path, content, pages, paper):
    """On paper, verdict, groups, things to do and timings are on one or two pages."""
    page, *_ = reported(tmp_path, content)
    path = tmp_path / "print.html"
    path.write_text(page.replace("@page {", f"@page {{ size: {paper};"))
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}", f"file://{path}")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= pages


@pytest.mark.skipif(AXE is None, reason="no axe-core here: pip install --no-deps axe-playwright-python, and it runs")
@pytest.mark.parametrize("scheme", [0, 1], ids=["scheme=dark", "scheme=light"])
@pytest.mark.parametrize("folded", [True, False], ids="folded={}".format)
def test_page_is_accessible(tmp_path, scheme, folded):
    """axe-core finds no violation of its rules, WCAG 2.2's among them, in either scheme, folded and unfolded."""
    content = deepcopy(BAD)
    content["findings"]["doctor"] = [finding(**WELL, fix="nvidia-smi -pm 1")]
    page, *_ = reported(tmp_path, content | {"calibrations": EVERYTHING["calibrations"]})
    page = re.sub("<meta http-equiv[^>]*>", "", page)  # whose policy lets no script run
    page = re.sub(r"background:\s+linear-gradient.*?;", "", page, flags=re.DOTALL)  # on which it knows no contrast
    page = page if folded else page.replace("<details>", "<details open>")
    axe = (Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text()
    report = "axe.run().then(found => document.body.dataset.found = JSON.stringify(found.violations.map(v => v.id)))"
    (tmp_path / "axe.html").write_text(f"{page}<script>{axe}</script><script>{report}</script>")
    options = ("--dump-dom", f"--blink-settings=preferredColorScheme={scheme}", f"file://{tmp_path / 'axe.html'}")
    dom = chromium(tmp_path, *options)
    assert json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1])) == []
