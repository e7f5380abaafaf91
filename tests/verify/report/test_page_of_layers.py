"""What the page says of layers and of overheads: by name what loses most, and tables; on paper, no layers."""

from pathlib import Path

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.report.page import write_report
from alexnet_repro.verify.report.run_record import RunRecord
from tests.helpers.html_pages import Page

LAYERS = [
    LayerTiming("cpu:0", "float32", 32, "conv2d", "forward", 0.05, 0.04),
    LayerTiming("cpu:0", "float32", 32, "dense", "update", 1.2, 0.03),
    LayerTiming("cpu:0", "float32", 32, "<b>", "forward", 0.001, 0.002),
]
CELLS = [
    OverheadCell("cpu:0", "float32", False, False, 8, (0.2, 0.2, 0.2), ""),
    OverheadCell("cpu:0", "float32", False, True, 8, (), "<i>no such step</i>"),
]


def page_of(folder, **fields):
    """Return the page of a run with these fields."""
    write_report(RunRecord(Path("results.json"), **fields), folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_layers_and_overheads(tmp_path):
    """The layers that lose most are a sentence, each layer a row; a combination without a time has its reason."""
    page = page_of(tmp_path, layers=LAYERS, overheads=CELLS)
    text = Page(page).text
    assert "Most time is lost in dense update 1,170 ms (2 % of its roofline), conv2d forward 10 ms" in text
    assert "conv2d 40 50 80" in text
    assert "float32 off 200.0" in text
    assert "<b>" in text
    assert "<b>" not in page
    assert "–: <i>no such step</i>" in text


def test_layers_are_not_on_paper(tmp_path):
    """Two sheets of paper have room for the rest; a run without a profile has no such section at all."""
    assert '<section id="layers" class="screen">' in page_of(tmp_path, layers=LAYERS)
    assert 'id="layers"' not in page_of(tmp_path)
