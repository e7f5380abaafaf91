"""The report in a real browser, on a phone, a screen and paper; skipped where there is no Chromium."""

import re
from copy import deepcopy

import pytest

from tests.helpers.browser import chromium, needs_axe, needs_chromium, page_in_frame, printed_pages, violations
from tests.helpers.html_pages import FORGED, reported
from tests.helpers.results_files import CASE, DOUBTFUL, EVERYTHING, FAILED, WELL, WRONG, finding, run, timing

pytestmark = [pytest.mark.slow, needs_chromium]
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


def measured(folder, content, width):
    """Return what a run's page is, in a frame of that width."""
    return page_in_frame(folder, reported(folder, content)[0], width)


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
    assert printed_pages(tmp_path, reported(tmp_path, content)[0], paper) <= pages


@needs_axe
@pytest.mark.parametrize("scheme", [0, 1], ids=["scheme=dark", "scheme=light"])
@pytest.mark.parametrize("folded", [True, False], ids="folded={}".format)
def test_page_is_accessible(tmp_path, scheme, folded):
    """axe-core finds no violation of its rules, WCAG 2.2's among them, in either scheme, folded and unfolded."""
    content = deepcopy(BAD)
    content["findings"]["doctor"] = [finding(**WELL, fix="nvidia-smi -pm 1")]
    page, *_ = reported(tmp_path, content | {"calibrations": EVERYTHING["calibrations"]})
    page = page if folded else page.replace("<details>", "<details open>")
    assert violations(tmp_path, page, scheme) == []
