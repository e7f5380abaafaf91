"""The page that compares two runs: both verdicts, every case's ratio, and what differs between the machines."""

import re

from alexnet_repro.verify.report.compare_runs import compare
from alexnet_repro.verify.report.page import write_comparison
from alexnet_repro.verify.report.read import read_results
from tests.helpers.html_pages import FORGED, Page, tables
from tests.helpers.results_files import WRONG, run, timing, written


def compared(folder, first, second):
    """Write a comparison, and return page and Markdown."""
    runs = [read_results(written(folder, content, name)) for content, name in ((first, "a.json"), (second, "b.json"))]
    paths = write_comparison(*runs, compare(*runs), folder)
    return [path.read_text() for path in paths]


def test_comparison(tmp_path):
    """Both verdicts, each common case's ratio and interval, the cases of one alone, machines, and what isn't well."""
    first = run(timings=[timing(rounds=[1.0] * 5), timing("forward[batch=1]")])
    second = run(
        verdict="FAIL",
        correct=[WRONG],
        timings=[timing(rounds=[1.25] * 5), timing("resize[side=28]")],
        machine={"devices": ["cpu:0"], "threads": {"processors": 4}},
    )
    page, markdown, svg = compared(tmp_path, first, second)
    text = Page(page).text
    assert re.findall(r"<h1>(.*)</h1>", page) == ["A: ✓ PASS", "B: ✗ FAIL"]
    assert "train_step, cpu:0, batch 32, float32 1 s 1.25 s 1.250 1.250 to 1.250 slower" in text
    assert "Only in A forward, batch 1" in text
    assert "Only in B resize, side 28" in text
    assert "devices cpu:0 the same" in text
    assert "threads, processors 2 4" in text
    assert "✗ FAIL gpu:1 layers tf32 conv2d output: off by 0.5" in text
    assert svg.partition("</title>")[2] in page
    assert ["threads, processors", "2", "4"] in [[cell.strip() for cell in row] for row in tables(markdown)[0]]
    row = [cell.strip() for cell in tables(markdown)[1][2]]
    assert row[1:] == ["1 s", "1.25 s", "1.250", "1.250 to 1.250", "slower"]
    assert "conv2d output: off by 0.5" in markdown


def test_forged_comparison_is_text(tmp_path):
    """What comes from either file is text."""
    forged = run(correct=[{**WRONG, "message": FORGED}], machine={FORGED: FORGED}, timings=[timing(FORGED)])
    for pair in ((forged, run()), (run(), forged), (forged, forged)):
        page, markdown, *_ = compared(tmp_path, *pair)
        assert {tag for tag, _ in Page(page).tags} & {"script", "img"} == set()
        assert "<" not in markdown
