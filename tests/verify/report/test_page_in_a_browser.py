"""The report in a real browser, on a phone and on a screen; skipped where there is no Chromium."""

import html
import re
import shutil
import subprocess
from copy import deepcopy

import pytest

from tests.helpers.html_pages import FORGED, reported
from tests.helpers.results_files import EVERYTHING, FAILED, WELL, finding, timing

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# In the page around the report's frame, whose own policy lets no script run.
MEASURE = """
<script>
const page = document.getElementById("page");
page.onload = () => {
  const inside = page.contentDocument, root = inside.documentElement;
  const sizes = [...inside.querySelectorAll("body *")].filter(e => [...e.childNodes].some(
    n => n.nodeType === 3 && n.data.trim() && e.getClientRects().length))
    .map(e => parseFloat(inside.defaultView.getComputedStyle(e).fontSize) *
      (e.ownerSVGElement ? e.getScreenCTM().a : 1));
  document.body.dataset.found = [root.scrollWidth - root.clientWidth, inside.title, Math.min(...sizes).toFixed(1),
    inside.querySelector("h1").innerText].join(";");
};
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and it runs")
@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize(
    ("content", "verdict"),
    [pytest.param(FAILED, "✗ FAIL", id="verdict=FAIL"), pytest.param(EVERYTHING, "✓ PASS", id="verdict=PASS")],
)
def test_page_in_a_browser(tmp_path, width, content, verdict):
    """On a phone and on a screen, the verdict is there, nothing overflows sideways, no letter is below 16 pixels."""
    content = {**deepcopy(content), "timings": [*content["timings"], timing("forward[batch=1]" + "x" * 80)]}
    content["findings"]["correct"].append({**finding(**WELL), "message": FORGED, "fix": "y" * 300})
    page, *_ = reported(tmp_path, content)
    wrapper = tmp_path / "wrapper.html"  # windows have a least width; frames have none
    frame = f'<iframe id="page" style="border:0;width:{width}px;height:844px" srcdoc="{html.escape(page)}"></iframe>'
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{MEASURE.replace("<script>", frame + "<script>")}')
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,900", "--dump-dom", f"file://{wrapper}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    found = html.unescape(re.search(r'data-found="([^"]*)"', dom)[1])
    overflow, title, smallest, heading = found.split(";")
    assert int(overflow) == 0
    assert title == f"{verdict[2:]}: alexnet-repro"
    assert heading == verdict
    assert float(smallest) >= 16
