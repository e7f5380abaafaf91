"""The report of a run: the verdict in words, all problems, nothing that runs or loads, the same each time."""

import re
from xml.etree import ElementTree as ET

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import plots
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import RunRecord, read_results
from tests.helpers.html_pages import Page, page_tables, reported, tables
from tests.helpers.results_files import DOUBTFUL, EVERYTHING, FAILED, RUN, WELL, WRONG, run, timing, written


@pytest.mark.parametrize(
    ("content", "verdict", "words"),
    [
        pytest.param(
            run(), "✓ PASS", "This machine is correct, repeatable and fast by its own measure alone.", id="verdict=PASS"
        ),
        pytest.param(
            FAILED,
            "✗ FAIL",
            "Something is wrong with this machine: 1 check failed, ",
            id="verdict=FAIL",
        ),
        pytest.param(
            run(verdict="INCONCLUSIVE", fast=[]),
            "? INCONCLUSIVE",
            "Nothing failed, but not every check was conclusive.",
            id="fast=nothing",
        ),
        pytest.param(
            run(complete=False) | {"run": {"ended": "interrupted by SIGTERM"}},
            "? INCONCLUSIVE",
            "not every check was conclusive; the run didn't finish: interrupted by SIGTERM.",
            id="complete=False",
        ),
    ],
)
def test_verdict_is_in_words(tmp_path, content, verdict, words):
    """Sign, word and sentence stand in the page's only first heading and at the head of the summary."""
    page, markdown, _ = reported(tmp_path, content)
    assert re.findall(r"<title>(.*)</title>", page) == [f"{verdict[2:]}: alexnet-repro"]
    assert re.findall(r"<h1>(.*)</h1>", page) == [verdict]
    assert words in Page(page).text
    assert markdown.startswith(f"## {verdict}\n")
    assert words in markdown


def test_groups_are_counted(tmp_path):
    """Each of the five groups has its verdict and counts, and what wasn't answered is named."""
    content = run(verdict="FAIL", doctor=[], correct=[WELL, WELL, WRONG, DOUBTFUL])
    left = {"name": "test_forward.py::test_forward[device=gpu:1]", "group": "fast", "device": "gpu:1"}
    content["plan"].append({**left, "state": "not asked", "why": "deselected", "status": None})
    page, markdown, _ = reported(tmp_path, content)
    expected = [
        ("doctor", "? INCONCLUSIVE", "not run"),
        ("correct", "✗ FAIL", "2 of 4 passed, 1 failed, 1 inconclusive"),
        ("repeatable", "✓ PASS", "1 of 1 passed"),
        ("fast", "? INCONCLUSIVE", "1 of 1 passed, 1 of 2 not answered"),
        ("reference", "✓ PASS", "1 of 1 passed"),
    ]
    assert [tuple(cell.strip() for cell in row) for row in tables(markdown)[0][2:]] == expected
    assert " ".join(" ".join(row) for row in expected) in Page(page).text
    assert "Not answered gpu:1: not asked (deselected): forward" in Page(page).text
    assert "\nNot answered:\n- gpu:1: not asked (deselected): forward\n" in markdown.replace("\\", "")


def test_run_is_identified(tmp_path):
    """Page and summary say at their head who ran what, where, when, and how long."""
    page, markdown, _ = reported(tmp_path, run())
    line = (
        "node1 · 2026-11-24T10:15:00+00:00 · 242 s · alexnet-repro 0.1.0 · revision fcce852 · pytest benchmarks --full"
    )
    assert line in Page(page[: page.index("<main>")]).text
    assert line in markdown.replace("\\", "")[:400]


@pytest.mark.parametrize("hosts", [None, 4711, "node1"])
def test_run_that_names_no_hosts(tmp_path, hosts):
    """A file whose hosts aren't several is reported with its one."""
    page, *_ = reported(tmp_path, run() | {"run": {**RUN, "hosts": hosts}})
    assert "node1 · 2026-11-24" in page


def test_all_problems_are_shown(tmp_path):
    """Failures, then inconclusive checks, each with device, precision, message, evidence, number, bound and fix."""
    page, markdown, _ = reported(tmp_path, FAILED)
    expected = (
        "✗ FAIL gpu:1 layers tf32 conv2d output: off by 0.5 Evidence: 1 of 10 elements "
        "Number: 0.5 (bound: 0.25) Fix: python -m alexnet_repro doctor "
        "? INCONCLUSIVE golden recorded elsewhere Fix: record it here"
    )
    assert expected in Page(page).text
    fixed = "off by 0.5\n\n```\npython -m alexnet_repro doctor\n```\n"
    assert f"#### ✗ FAIL: gpu:1 layers tf32\n\nconv2d output: {fixed}" in markdown
    assert markdown.endswith("#### ? INCONCLUSIVE: golden\n\nrecorded elsewhere\n\n```\nrecord it here\n```\n")
    assert len(markdown.splitlines()) <= 30


def test_passed_checks_are_folded(tmp_path):
    """Passed checks are in details that are closed; those with a fix are suggestions before them as well."""
    page, *_ = reported(tmp_path, run(doctor=[{**WELL, "fix": "nvidia-smi -pm 1"}]))
    assert "Suggestions</h2>" in page
    assert "Fix: nvidia-smi -pm 1" in Page(page[: page.index("<details>")]).text
    assert page.count("<details>") == 5
    assert "<details open" not in page
    assert "cpu:0 shapes: all 14 layers" in Page(page[page.index("<details>") :]).text


def test_timings(tmp_path):
    """Median, interquartile range, images/s, shares of peak and roofline, and bottleneck; else a dash."""
    content = run(
        timings=[
            timing(peak=128e9, roofline=1.5, bottleneck="compute", layer="dense"),
            timing("forward[batch=1]", rounds=[0.002] * 5, images=1, flop=0),
            timing("resize[side=28]", fault="wrong"),
        ],
    )
    page, *_ = reported(tmp_path, content)
    assert page_tables(page)[1] == [
        ["case", "median", "IQR", "images/s", "% peak", "% roofline", "bottleneck"],
        ["train_step, cpu:0, batch 32, float32", "3 s", "66.7 %", "10.7", "25 %", "50 %", "compute, dense"],
        ["forward, batch 1", "2 ms", "0.0 %", "500", "–", "–", "–"],
        ["resize, side 28", "3 s", "66.7 %", "invalid", "–", "–", "–"],
    ]


def test_costs_and_conditions(tmp_path):
    """Pipelined and first rounds, memory and conditions have a table; what no case has is no column."""
    conditions = {"load": 1.25, "cpu_mhz": 2596.15, "gpu_mhz": None, "temperature": None, "heat": ""}
    content = run(
        timings=[
            timing(first=2.5, pipelined=0.9, peak_memory=2_100_000_000, conditions=conditions),
            timing("draw_train"),
        ]
    )
    page, *_ = reported(tmp_path, content)
    assert page_tables(page)[2] == [
        ["case", "pipelined", "first round", "memory", "load", "CPU clock"],
        ["train_step, cpu:0, batch 32, float32", "900 ms", "2.5 s", "2.10 GB", "1.25", "2,596 MHz"],
        ["draw_train", "–", "–", "–", "–", "–"],
    ]
    assert "First-run cost" not in reported(tmp_path, run(timings=[timing()]))[0]


def test_drawings_have_their_sections(tmp_path):
    """Roofline, reference and learning are each drawn under their heading where there is something to be drawn."""
    page, _, paths = reported(tmp_path, EVERYTHING)
    headings = ["Roofline", "Time relative to the reference", "Train steps, round by round", "Learning"]
    assert [each for each in re.findall(r"<h2>(.*)</h2>", page) if each in headings] == headings
    names = {path.name.partition("-")[0] for path in paths[2:]}
    assert names == {"throughput", "roofline", "reference", "steps", "learning"}
    page, *_ = reported(tmp_path, FAILED)
    assert [each for each in re.findall(r"<h2>(.*)</h2>", page) if each in headings] == headings[2:3]


def test_drawing_by_itself(tmp_path):
    """A drawing's own file has a title, and is on white: the viewer may be dark."""
    _, _, paths = reported(tmp_path, EVERYTHING)
    for path in paths[2:]:
        assert re.match(r'<svg style="background: white" [^>]*><title>\S[^<]*</title>', path.read_text())


def test_passed_checks_have_their_evidence(tmp_path):
    """Passed checks are on the page with their evidence, and not in the summary."""
    page, markdown, _ = reported(tmp_path, run(correct=[{**WELL, "message": "all rows", "evidence": "14 of 14"}]))
    assert "all rows (14 of 14)" in Page(page).text
    assert "all rows" not in markdown


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


def test_many_drawings_are_folded(tmp_path, monkeypatch):
    """Nine cases of train steps are in details of their own; eight are in view."""
    drawing = plots.Drawing("steps", "rounds of a case", "<svg></svg>")
    monkeypatch.setattr(plots, "step_times", lambda cases: [drawing for _ in cases])
    cases = [timing(f"train_step[batch={number}]") for number in range(9)]
    assert "<summary>All 9 cases</summary>" in reported(tmp_path, run(timings=cases))[0]
    assert "<summary>All" not in reported(tmp_path, run(timings=cases[:8]))[0]


def test_line_of_a_run(tmp_path):
    """A run's own report lies beside its results, and the line says where."""
    record = RunRecord(tmp_path / "results.json")
    record.add("correct", Finding("shapes", "PASS", "well"))
    assert report_line(record) == f"report: {tmp_path / 'report.html'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.json", "summary.md"]


def test_what_no_file_may_hold(tmp_path):
    """A run with bytes that aren't text in its command, or in an error's message, has its page."""
    failed = Finding("layers", "FAIL", "no such file: \udcff\x1b[2J", device="cpu:0")
    record = RunRecord(tmp_path / "results.json", run={"command": "pytest benchmarks -k '\udcff'"})
    record.add("correct", failed)
    assert report_line(record) == f"report: {tmp_path / 'report.html'}"
    for name in ("report.html", "summary.md"):
        text = (tmp_path / name).read_text()
        assert "no such file: \N{REPLACEMENT CHARACTER}" in text
        assert "\x1b" not in text


def test_full_disk_is_a_line(tmp_path, monkeypatch):
    """A report that can't be written is one line with the reason; the old one stays, and nothing half written."""
    record = read_results(written(tmp_path, run()))
    report_line(record)
    before = (tmp_path / "report.html").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    line = report_line(record)
    assert line.startswith(f"report: none; {tmp_path / 'report.html'} can't be written: No space left on device")
    assert "\n" not in line
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("error", [ImportError("No module named 'x'"), RuntimeError("two\nlines"), ValueError()],
                         ids=lambda error: f"error={type(error).__name__}")  # fmt: skip
def test_any_error_is_a_line(tmp_path, monkeypatch, error):
    """Any error in drawing is one line, too: how a run is drawn doesn't change its outcome."""

    def broken(*_):
        raise error

    monkeypatch.setattr("alexnet_repro.verify.report.page.plots.throughput", broken)
    line = report_line(read_results(written(tmp_path, run())))
    assert line == f"report: none; {' '.join(str(error).split()) or 'ValueError'}"
