"""The files that compare two runs: both verdicts, every case's ratio, and what differs between the machines."""

import json
import math

from alexnet_repro.verify.report.compare_runs import compare
from alexnet_repro.verify.report.page import write_comparison
from alexnet_repro.verify.report.run_record import read_results
from tests.helpers.html_pages import FORGED, tables
from tests.helpers.results_files import CASE, RUN, WRONG, run, timing, written


def compared(folder, first, second):
    """Write a comparison, and return its Markdown and its JSON."""
    runs = [read_results(written(folder, content, name)) for content, name in ((first, "a.json"), (second, "b.json"))]
    markdown, data = write_comparison(*runs, compare(*runs), folder)
    return markdown.read_text(), json.loads(data.read_text(), parse_constant=math.sqrt)


def test_comparison(tmp_path):
    """Both have the verdicts, each common case's ratio and interval, the cases of one alone, and what differs."""
    first = run(timings=[timing(rounds=[1.0] * 5), timing("forward[batch=1]"), timing("resize", fault="wrong")])
    second = run(
        verdict="FAIL",
        correct=[WRONG],
        timings=[timing(rounds=[1.25] * 5), timing("draw[side=28]"), timing("resize")],
        machine={"devices": ["cpu:0"], "threads": {"processors": 4}},
    )
    markdown, data = compared(tmp_path, first, second)
    plain = markdown.replace("\\", "")
    assert f"- A: ✓ PASS, {tmp_path / 'a.json'}; node1 · 2026-11-24T10:15:00+00:00 · 242 s" in plain
    assert f"- B: ✗ FAIL, {tmp_path / 'b.json'}; node1 · " in plain
    ratios, machines = ([[cell.strip() for cell in row] for row in table] for table in tables(markdown))
    assert ratios[2:] == [
        ["train\\_step, cpu:0, batch 32, float32", "1 s", "1.25 s", "1.250", "1.250 to 1.250", "slower"],
        ["resize", "3 s", "3 s", "–", "–", "invalid"],
    ]
    assert machines[2:] == [["threads, processors", "2", "4"]]
    assert "Only in A:\n\n- forward, batch 1\n" in markdown
    assert "Only in B:\n\n- draw, side 28\n" in markdown
    assert data == {
        "A": {"path": str(tmp_path / "a.json"), "verdict": "PASS", "run": RUN},
        "B": {"path": str(tmp_path / "b.json"), "verdict": "FAIL", "run": RUN},
        "cases": [
            {
                "case": CASE,
                "seconds": {"A": 1.0, "B": 1.25},
                "ratio": 1.25,
                "interval": [1.25, 1.25],
                "result": "slower",
            },
            {
                "case": "resize",
                "seconds": {"A": 3.0, "B": 3.0},
                "ratio": None,
                "interval": [None, None],
                "result": "invalid",
            },
        ],
        "only": {"A": ["forward[batch=1]"], "B": ["draw[side=28]"]},
        "machines": {"threads, processors": {"A": "2", "B": "4"}},
    }


def test_forged_comparison_is_text(tmp_path):
    """What comes from either file is text."""
    forged = run(machine={FORGED: FORGED, "a|b": "|"}, timings=[timing(FORGED), timing("a|b")])
    for pair in ((forged, run()), (run(), forged), (forged, forged)):
        markdown, _ = compared(tmp_path, *pair)
        assert "<" not in markdown
        assert {len(row) for table in tables(markdown) for row in table} <= {3, 6}
