"""The report of a run: the verdict in words, all problems, nothing that runs or loads, the same each time."""

import html
import re
import time
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.page import report_line, write_report
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
            "gpu:1 failed 1 check",
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
    """Page and summary say at their head who ran what, where, when, how long, and at which level."""
    machine = {
        "gpus": ["H100", "H100"],
        "cpu": "EPYC",
        "driver": "555.42",
        "packages": {"keras": "3.15.1", "tensorflow": "2.21.0", "numpy": "2.4.6"},
    }
    page, markdown, _ = reported(tmp_path, run(machine=machine) | {"run": RUN | {"level": "long"}})
    expected = (
        "Host node1 Hardware 2 × H100, EPYC Run 2026-11-24 10:15:00 UTC, 4 min 2 s, level long Software "
        "alexnet-repro 0.1.0 (fcce852), tensorflow 2.21.0, keras 3.15.1, driver 555.42 Command pytest benchmarks "
        "--level=long"
    )
    assert expected in Page(page[: page.index("<main")]).text
    line = (
        "node1 · 2026-11-24T10:15:00+00:00 · 242 s · alexnet-repro 0.1.0 · revision fcce852 · pytest benchmarks "
        "--level=long"
    )
    assert line in markdown.replace("\\", "")[:400]


def test_several_machines_are_identified(tmp_path):
    """Of several machines, GPUs are counted together, and a version that all have stands once."""
    one = {"gpus": ["H100"] * 8, "cpu": "EPYC", "packages": {"tensorflow": "2.21.0"}, "driver": "555.42"}
    other = {**one, "gpus": ["H100"] * 7, "driver": "550.1"}
    content = run(machine={"machines": ["a", "b", "c"], "a": one, "b": other})
    page, *_ = reported(tmp_path, content | {"run": {"hosts": ["a", "b"], "seconds": 1.0}})
    expected = (
        "Host a, b Hardware 15 × H100, EPYC Run 1 s, level standard Software tensorflow 2.21.0, driver 555.42, "
        "driver 550.1 "
    )
    assert expected in Page(page).text
    assert "Hardware EPYC, no GPU Run" in Page(reported(tmp_path, run(machine={"gpus": [], "cpu": "EPYC"}))[0]).text
    odd = {"machines": ["a"], "a": {"gpus": "x", "packages": [1], "driver": {"a": 1}}}
    assert (
        "Software alexnet-repro 0.1.0 (fcce852), driver {'a': 1} " in Page(reported(tmp_path, run(machine=odd))[0]).text
    )


def test_all_problems_are_shown(tmp_path):
    """Failures, then inconclusive checks, each with device, precision, message, number, bound, evidence and fix."""
    page, markdown, _ = reported(tmp_path, FAILED)
    expected = (
        "What to do ✗ FAIL gpu:1 layers tf32 conv2d output: off by 0.5 (0.5; bound 0.25) Evidence: 1 of 10 elements "
        "python -m alexnet_repro doctor ? INCONCLUSIVE golden Recorded elsewhere Record it here"
    )
    assert expected in Page(page).text
    assert "<pre><code>python -m alexnet_repro doctor</code></pre>" in page
    assert "<p>Record it here</p>" in page
    assert markdown.endswith(
        "\nWhat to do:\n"
        "- ✗ FAIL, gpu:1 layers tf32: conv2d output: off by 0.5. Fix: `python -m alexnet\\_repro doctor`\n"
        "- ? INCONCLUSIVE, golden: recorded elsewhere. Fix: record it here\n".replace(
            "\\_repro doctor`", "_repro doctor`"
        )
    )
    assert len(markdown.splitlines()) <= 20


def test_each_thing_to_do_is_listed_once(tmp_path):
    """Cases that the same thing would settle share a card, folded into a table; the summary counts them."""
    fix = {"fix": "run it alone: pytest benchmarks # when idle"}
    noisy = [
        {**DOUBTFUL, "check": "low_noise", "device": "cpu:0", "number": 0.25, "bound": 0.1, "case": case, **fix}
        | {"message": f"{case} is too noisy"}
        for case in (f"forward[device=cpu:0-batch={number}-precision=float32]" for number in range(12))
    ]
    page, markdown, _ = reported(tmp_path, run(verdict="INCONCLUSIVE", fast=noisy))
    assert page.count("<pre><code>pytest benchmarks</code></pre>") == 1
    assert page.count('<article class="task"') == 1
    assert (
        "? INCONCLUSIVE cpu:0 low_noise: 12 cases First: forward, cpu:0, batch 0, float32 is too noisy"
        in Page(page).text
    )
    (rows,) = [table for table in page_tables(page) if table[0][0] == "case"]
    assert rows[0] == ["case", "measured", "finding"]
    assert rows[12] == ["forward, cpu:0, batch 11, float32", "25.0 % spread; at most 10.0 %", "is too noisy"]
    assert markdown.count("pytest benchmarks`") == 1
    assert (
        "- ? INCONCLUSIVE, cpu:0 low\\_noise: 12 cases: first forward, cpu:0, batch 0, float32 is too noisy" in markdown
    )


def test_passed_checks_are_folded(tmp_path):
    """Passed checks are in details that are closed; those with a fix are suggestions as well."""
    page, *_ = reported(tmp_path, run(doctor=[{**WELL, "fix": "nvidia-smi -pm 1"}]))
    assert "<details open" not in page
    suggested, passed = (page.index(f'<div id="{each}" class="inside">') for each in ("suggestions", "passed"))
    assert "<pre><code>nvidia-smi -pm 1</code></pre>" in page[suggested:passed]
    assert "doctor: 1 passed cpu:0 shapes: all 14 layers" in Page(page[passed:]).text
    assert 'id="suggestions"' not in reported(tmp_path, run())[0]


def test_what_libraries_wrote_is_folded(tmp_path):
    """What libraries wrote is at the end of the page where the run kept it, as text; else it has no place there."""
    page, *_ = reported(tmp_path, run() | {"run": {**RUN, "library_output": "<b>oneDNN</b> is on"}})
    assert "What the libraries wrote <b>oneDNN</b> is on" in html.unescape(Page(page).text)
    assert "What the libraries wrote" not in reported(tmp_path, run())[0]


def test_contents_lead_to_sections(tmp_path):
    """Each link of the contents has its section, and each section its heading; levels of headings have no gaps."""
    content = FAILED | {"timings": EVERYTHING["timings"], "calibrations": EVERYTHING["calibrations"]}
    page, *_ = reported(tmp_path, content)
    contents = page[page.index('<nav class="screen" aria-label="Contents">') : page.index("</nav>")]
    links = re.findall(r'<a href="#([a-z-]+)">', contents)
    assert links == ["groups", "todo", "timings", "throughput", "machine", "passed"]
    assert all(page.count(f' id="{each}"') == 1 for each in [*links, "main"])
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize(
    "content", [pytest.param(FAILED, id="verdict=FAIL"), pytest.param(EVERYTHING, id="verdict=PASS")]
)
def test_page_can_be_heard(tmp_path, content):
    """Tables have captions, columns and rows their headings; a drawing is one image with a label, silent within."""
    page, *_ = reported(tmp_path, content)
    assert page.count("<caption") == page.count("<table") > 1
    assert not re.findall(r"<th(?! scope=)[ >]", page)
    figures = re.findall(r"<figure ([^>]*)>(<svg[^>]*>)", page)
    assert figures
    assert all(re.match(r'class="drawing" role="img" aria-label="[^"]{10,}"', figure) for figure, _ in figures)
    assert all('aria-hidden="true"' in svg for _, svg in figures)
    regions = re.findall(r'role="region" tabindex="0" aria-label="([^"]+)"', page)
    assert len(regions) == page.count("<table") == len(set(regions))


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
    headings = ["Time relative to the reference", "Roofline", "Train steps, round by round", "Learning one batch"]
    assert [each for each in re.findall(r"<h2>(.*?)</h2>", page) if each in headings] == headings
    names = {path.name.partition("-")[0] for path in paths[2:]}
    assert names == {"throughput", "roofline", "reference", "steps", "learning"}
    page, *_ = reported(tmp_path, FAILED)
    assert [each for each in re.findall(r"<h2>(.*?)</h2>", page) if each in headings] == headings[2:3]


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
    assert loads == {"href"}
    hrefs = [value for _, each in tags for name, value in each.items() if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for value in hrefs)
    assert set(re.findall(r"https?://[^\"\s]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    policy = {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}
    assert ("meta", policy) in tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    for path in paths[2:]:
        ET.parse(path)


def test_same_report_twice(tmp_path):
    """The same results give the same bytes, in every file."""
    first, second = (reported(tmp_path / name, FAILED)[2] for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(first) == 2 + 2


def test_many_drawings_are_folded(tmp_path):
    """Two drawings of throughput are in view, others are folded; of a kind, 24 are drawn, and the page says so."""
    cases = [timing(f"kind{number}[batch=1]") for number in range(26)]
    page, _, paths = reported(tmp_path, run(timings=cases[:2]))
    assert (page.count("<figure"), len(paths), "more-throughput" in page) == (2, 4, False)
    page, _, paths = reported(tmp_path, run(timings=cases))
    assert page[: page.index('id="more-throughput"')].count("<figure") == 2
    assert (page.count("<figure"), len(paths)) == (24, 26)
    assert "These are the first 24 drawings; the numbers of all are in results.json." in Page(page).text


def test_enormous_run_stays_readable(tmp_path):
    """A run of 30,000 failures with fixes of their own, and as many passes, has a page of less than 2 MB in 20 s."""
    wrong = [{**WRONG, "check": f"check{number}", "fix": f"fix {number}"} for number in range(30_000)]
    content = run(verdict="FAIL", correct=wrong, repeatable=[WELL] * 30_000)
    content["plan"] *= 1000
    record = RunRecord(tmp_path / "results.json", findings=read_results(written(tmp_path, content)).findings)
    begun = time.process_time()
    page, summary = (path.read_text() for path in write_report(record, tmp_path))
    assert time.process_time() - begun < 20
    assert len(page) < 2_000_000
    assert "and 29,970 more, in results.json" in page
    assert "Passed checks (30003)" in Page(page).text
    assert "- and 29992 more, in report.html" in summary
    assert len(summary.splitlines()) < 40


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
        assert "o such file: \N{REPLACEMENT CHARACTER}" in text
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
