"""The report of a run: the verdict in words, all that isn't well, nothing that runs or loads, the same each time."""

import re
from xml.etree import ElementTree as ET

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import Record
from tests.helpers.html_pages import Page, reported, tables
from tests.helpers.results_files import DOUBTFUL, EVERYTHING, FAILED, WELL, WRONG, run, timing, written


@pytest.mark.parametrize(
    ("content", "verdict", "words"),
    [
        pytest.param(run(), "✓ PASS", "This machine is correct, repeatable and fast.", id="verdict=PASS"),
        pytest.param(
            FAILED,
            "✗ FAIL",
            "Something is wrong with this machine: 1 check failed, ",
            id="verdict=FAIL",
        ),
        pytest.param(
            run(verdict="INCONCLUSIVE", fast=[]),
            "? INCONCLUSIVE",
            "Nothing failed, but not every check",
            id="fast=nothing",
        ),
        pytest.param(run(complete=False), "? INCONCLUSIVE", "The run didn't come to its end", id="complete=False"),
    ],
)
def test_verdict_is_said_in_words(tmp_path, content, verdict, words):
    """Sign, word and sentence stand in the page's only first heading and at the head of the Markdown."""
    page, markdown, _ = reported(tmp_path, content)
    assert re.findall(r"<h1>(.*)</h1>", page) == [verdict]
    assert words in Page(page).text
    assert markdown.startswith(f"## {verdict}\n")
    assert words in markdown


def test_groups_are_counted(tmp_path):
    """Each of the five groups has its verdict and counts, and what wasn't run is named."""
    content = run(verdict="FAIL", doctor=[], correct=[WELL, WELL, WRONG, DOUBTFUL])
    page, markdown, _ = reported(tmp_path, content)
    expected = [
        ("doctor", "? INCONCLUSIVE", "not run"),
        ("correct", "✗ FAIL", "2 of 4 passed, 1 failed, 1 in doubt"),
        ("repeatable", "✓ PASS", "1 of 1 passed"),
        ("fast", "✓ PASS", "1 of 1 passed"),
        ("reference", "✓ PASS", "1 of 1 passed"),
    ]
    assert [tuple(cell.strip() for cell in row) for row in tables(markdown)[0][2:]] == expected
    assert " ".join(" ".join(row) for row in expected) in Page(page).text
    assert "Not run: doctor." in Page(page).text
    assert "Not run: doctor." in markdown


def test_everything_that_isnt_well_is_told(tmp_path):
    """Failures, then doubts, each with device, precision, cause, evidence, number, bound and fix."""
    page, markdown, _ = reported(tmp_path, FAILED)
    told = (
        "✗ FAIL gpu:1 layers tf32 conv2d output: off by 0.5 Evidence: 1 of 10 elements "
        "Number: 0.5, held against 0.25 What to do: python -m alexnet_repro doctor "
        "? INCONCLUSIVE golden recorded elsewhere What to do: record it here"
    )
    assert told in Page(page).text
    assert "#### ✗ FAIL: gpu:1 layers tf32\n\nconv2d output: off by 0.5\n\nEvidence: 1 of 10 elements\n" in markdown
    assert "```\npython -m alexnet_repro doctor\n```" in markdown
    assert "#### ? INCONCLUSIVE: golden" in markdown


def test_what_passed_is_folded_away(tmp_path):
    """What is well is in details that are closed; what is well and has a fix is told before them as well."""
    page, markdown, _ = reported(tmp_path, run(doctor=[{**WELL, "fix": "nvidia-smi -pm 1"}]))
    assert "What works, and could be better" in page
    assert "nvidia-smi \\-pm 1" in markdown or "nvidia-smi -pm 1" in markdown
    assert page.count("<details>") == 5
    assert "<details open" not in page
    assert "cpu:0 shapes: all 14 layers" in Page(page[page.index("<details>") :]).text


def test_timings(tmp_path):
    """Median, interquartile range, images/s, TFLOP/s, share of the peak and limit; a dash where there is none."""
    content = run(
        timings=[
            timing(peak=128e9, bottleneck="compute"),
            timing("forward[batch=1]", rounds=[0.002] * 5, images=1, flop=0),
            timing("resize[side=28]", fault="wrong"),
        ],
    )
    page, markdown, _ = reported(tmp_path, content)
    rows = [[cell.strip() for cell in row] for row in tables(markdown)[1]]
    assert rows[2:] == [
        ["train\\_step, cpu:0, batch 32, float32", "3 s", "66.7 %", "10.7", "0.032", "25 %", "compute"],
        ["forward, batch 1", "2 ms", "0.0 %", "500", "–", "–", "–"],
        ["resize, side 28", "3 s", "66.7 %", "void", "void", "void", "–"],
    ]
    assert "train_step, cpu:0, batch 32, float32 3 s 66.7 % 10.7 0.032 25 % compute" in Page(page).text


def test_costs_and_conditions(tmp_path):
    """Rounds in a row, first round, memory and conditions have a table; what isn't told of any case has no column."""
    told = {"load": 1.25, "cpu_mhz": 2596.15, "gpu_mhz": None, "temperature": None, "heat": ""}
    content = run(
        timings=[timing(first=2.5, pipelined=0.9, peak_memory=2_100_000_000, conditions=told), timing("draw_train")]
    )
    page, markdown, _ = reported(tmp_path, content)
    assert [[cell.strip() for cell in row] for row in tables(markdown)[2]] == [
        ["case", "in a row", "first round", "memory", "load", "CPU clock"],
        ["---", "---:", "---:", "---:", "---:", "---:"],
        ["train\\_step, cpu:0, batch 32, float32", "900 ms", "2.5 s", "2.10 GB", "1.25", "2,596 MHz"],
        ["draw\\_train", "–", "–", "–", "–", "–"],
    ]
    assert "train_step, cpu:0, batch 32, float32 900 ms 2.5 s 2.10 GB 1.25 2,596 MHz" in Page(page).text
    assert "What they cost besides" not in reported(tmp_path, run(timings=[timing()]))[0]


def test_drawings_have_their_sections(tmp_path):
    """Roofline, reference and learning are each drawn under their heading where there is something to be drawn."""
    page, _, paths = reported(tmp_path, EVERYTHING)
    headings = ["What the device could do", "Time over the reference’s", "Train steps, round by round", "Learning"]
    assert [each for each in re.findall(r"<h2>(.*)</h2>", page) if each in headings] == headings
    names = {path.name.partition("-")[0] for path in paths[2:]}
    assert names == {"throughput", "roofline", "reference", "steps", "learning"}
    page, *_ = reported(tmp_path, FAILED)
    assert [each for each in re.findall(r"<h2>(.*)</h2>", page) if each in headings] == headings[2:3]


def test_drawing_by_itself(tmp_path):
    """A drawing's own file says what it shows, and is on white: what shows it may be dark."""
    _, _, paths = reported(tmp_path, EVERYTHING)
    for path in paths[2:]:
        assert re.match(r'<svg style="background: white" [^>]*><title>\S[^<]*</title>', path.read_text())


def test_what_passed_is_told_in_both(tmp_path):
    """What passed is in the Markdown as well as on the page."""
    page, markdown, _ = reported(tmp_path, run(correct=[{**WELL, "message": "all rows", "evidence": "14 of 14"}]))
    assert "all rows (14 of 14)" in Page(page).text
    assert ": all rows (14 of 14)\n" in markdown


@pytest.mark.parametrize(
    "content", [pytest.param(FAILED, id="verdict=FAIL"), pytest.param(EVERYTHING, id="verdict=PASS")]
)
def test_page_loads_nothing(tmp_path, content):
    """It opens offline: no scripts, no addresses but XML's own names, and a policy that forbids the browser more."""
    page, _, paths = reported(tmp_path, content)
    tags = Page(page).tags
    assert {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "image"} == set()
    loads = {name for _, attributes in tags for name in attributes if name in ("src", "href", "srcset", "action")}
    assert loads == set()
    assert all(value.startswith("#") for _, each in tags for name, value in each.items() if name == "xlink:href")
    assert set(re.findall(r"https?://[^\"\s]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    policy = {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}
    assert ("meta", policy) in tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    for path in paths[2:]:
        assert path.read_text().partition("</title>")[2] in page
        ET.parse(path)


def test_same_report_twice(tmp_path):
    """The same results give the same bytes, in every file."""
    first, second = (reported(tmp_path / name, FAILED)[2] for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(first) == 2 + 2


def test_many_drawings_are_folded_away(tmp_path):
    """Nine cases of train steps are in details of their own; eight are in view."""
    cases = [timing(f"train_step[batch={number}]") for number in range(9)]
    assert "<summary>All 9 cases</summary>" in reported(tmp_path, run(timings=cases))[0]
    assert "<summary>All" not in reported(tmp_path, run(timings=cases[:8]))[0]


def test_line_of_a_run(tmp_path):
    """A run's own report lies beside its results, and the line says where."""
    record = Record(tmp_path / "results.json")
    record.add("correct", Finding("shapes", "PASS", "well"))
    assert report_line(record.path) == f"report: {tmp_path / 'report.html'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md", "results.json"]


def test_full_disk_is_a_line(tmp_path, monkeypatch):
    """A report that can't be written is one line with the reason; the old one stays, and nothing half written."""
    path = written(tmp_path, run())
    report_line(path)
    before = (tmp_path / "report.html").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    line = report_line(path)
    assert line.startswith(f"report: none; {tmp_path / 'report.html'} can't be written: No space left on device")
    assert "\n" not in line
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("error", [ImportError("No module named 'x'"), RuntimeError("two\nlines"), ValueError()])
def test_whatever_goes_wrong_is_a_line(tmp_path, monkeypatch, error):
    """So is a fault in drawing, of whichever kind: how a run is drawn doesn't change its outcome."""

    def broken(*_):
        raise error

    monkeypatch.setattr("alexnet_repro.verify.report.page.plots.throughput", broken)
    line = report_line(written(tmp_path, run()))
    assert line == f"report: none; {' '.join(str(error).split()) or 'ValueError'}"
