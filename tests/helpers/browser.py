"""Pages in a real browser: Chromium without a window, and axe-core's rules of accessibility."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = importlib.util.find_spec("axe_playwright_python")  # which has axe-core's own file; no browser of it is used
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and it runs")
needs_axe = pytest.mark.skipif(
    AXE is None, reason="no axe-core here: pip install --no-deps axe-playwright-python, and it runs"
)
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


def chromium(folder, *options):
    """Run Chromium, and return what it prints."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def page_in_frame(folder, page, width):
    """Return what a page is, in a frame of that width: windows have a least width, frames have none."""
    wrapper = folder / "wrapper.html"
    frame = f'<iframe id="page" style="border:0;width:{width}px;height:844px" srcdoc="{html.escape(page)}"></iframe>'
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>{MEASURE}</script>')
    return _found(chromium(folder, "--dump-dom", f"file://{wrapper}"))


def printed_pages(folder, page, paper):
    """Return the number of pages on paper."""
    path = folder / "print.html"
    path.write_text(page.replace("@page {", f"@page {{ size: {paper};"))
    chromium(folder, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}", f"file://{path}")
    return len(re.findall(rb"/Type\s*/Page\b", (folder / "page.pdf").read_bytes()))


def violations(folder, page, scheme):
    """Return the rules of axe-core that a page breaks; `scheme`: 0 dark, 1 light."""
    page = re.sub("<meta http-equiv[^>]*>", "", page)  # whose policy lets no script run
    page = re.sub(r"background:\s+linear-gradient.*?;", "", page, flags=re.DOTALL)  # on which it knows no contrast
    axe = (Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text()
    report = "axe.run().then(found => document.body.dataset.found = JSON.stringify(found.violations.map(v => v.id)))"
    (folder / "axe.html").write_text(f"{page}<script>{axe}</script><script>{report}</script>")
    options = ("--dump-dom", f"--blink-settings=preferredColorScheme={scheme}", f"file://{folder / 'axe.html'}")
    return _found(chromium(folder, *options))


def _found(dom):
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
