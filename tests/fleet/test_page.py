"""The page of a fleet: the answer first, each thing once, all nodes in a picture, and nothing that runs or loads."""

import base64
import html
import io
import re
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from alexnet_repro.fleet.page import write_page
from alexnet_repro.fleet.records import FleetFinding, RefusedFile
from tests.helpers.fleets import (
    CASES,
    DRIFT,
    EMPTY,
    FORGED,
    HARMFUL,
    device,
    faulty_fleet,
    fleet_answer,
    harmful_fleet,
    healthy_fleet,
    large_fleet,
    node_run,
)
from tests.helpers.html_pages import Page, page_tables

RED = (224, 49, 49, 255)


def written(folder, answer):
    """Write a fleet's page, and return it."""
    return write_page(answer, folder).read_text()


def section(page, name):
    """Return a section of the page, by its id."""
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def texts(pattern, page):
    """Return the texts of whatever matches."""
    return [Page(each).text for each in re.findall(pattern, page, re.DOTALL)]


def pictures(page):
    """Return the pictures of pixels by their titles, as colours of (nodes, cases, 6, 6) pixels."""
    found = {}
    for title, uri in re.findall(r'<figure class="strip">\s*<h3[^>]*>(.*?)</h3>.*?base64,(.*?)"', page, re.DOTALL):
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA"))
        rows, columns = pixels.shape[0] // 6, pixels.shape[1] // 6
        found[html.unescape(title)] = pixels.reshape(rows, 6, columns, 6, 4).transpose(0, 2, 1, 3, 4)
    return found


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        pytest.param(healthy_fleet(), "✓ PASS", "All 8 nodes passed.", id="fleet=healthy"),
        pytest.param(faulty_fleet(), "✗ FAIL", "2 of 12 nodes failed (n[03,05])", id="fleet=faulty"),
        pytest.param(large_fleet(), "✗ FAIL", "rack=r07 is slow as a whole; 43 of 1,000 nodes", id="fleet=large"),
        pytest.param(EMPTY, "? INCONCLUSIVE", "No node was heard of", id="fleet=none"),
    ],
)
def test_verdict_comes_first(tmp_path, answer, verdict, words):
    """Sign and word stand in the title and the only first heading, with the sentence below, before all else."""
    page = written(tmp_path, answer)
    assert re.findall(r"^<title>(.*)</title>$", page, re.MULTILINE) == [f"{verdict[2:]}: alexnet-repro fleet"]
    assert re.findall(r"<h1>(.*)</h1>", page) == [verdict]
    assert words in Page(page[: page.index("<dl>")]).text


def test_questions_are_answered(tmp_path):
    """Each of eight questions has verdict and answer; what wasn't asked has a dash, not PASS."""
    assert texts(r"<dt>.*?</dd>", section(written(tmp_path, faulty_fleet()), "questions")) == [
        "? INCONCLUSIVE Each by itself 11 nodes; newest run 2026-11-24 10:15 UTC; 1 inconclusive",
        (
            "✗ FAIL Same bits 18 of 19 devices have the same bits; n05 gpu:0 differs; 1 other group; 1 failed, "
            "1 inconclusive"
        ),
        "✗ FAIL Same speed 19 devices, 12 cases; n03 gpu:1 is slow; 1 failed",
        "? INCONCLUSIVE Same as before 1 of 11 nodes with earlier runs; 1 inconclusive",
        "✗ FAIL Health 11 of 11 nodes with devices that count errors; 1 failed",
        "? INCONCLUSIVE Same software and firmware 11 nodes; 1 inconclusive",
        "? INCONCLUSIVE All heard of 12 expected; 1 inconclusive",
        "✓ PASS All files read 16 read, 1 left out",
    ]


def test_what_was_not_compared_is_no_pass(tmp_path):
    """Of one node without devices, no question that needs others, earlier runs or counters has a verdict."""
    page = written(tmp_path, fleet_answer([node_run("n1")]))
    assert texts(r"<dt>.*?</dd>", section(page, "questions")) == [
        "✓ PASS Each by itself 1 node; newest run 2026-11-24 10:15 UTC",
        "– Same bits nothing to compare",
        "– Same speed nothing to compare",
        "– Same as before no node has an earlier run",
        "– Health no device counts errors",
        "✓ PASS Same software and firmware 1 node",
        "– All heard of nobody is expected; --expect=FILE names them",
        "✓ PASS All files read 1 read, 0 left out",
    ]


def test_each_thing_to_do_is_there_once(tmp_path):
    """A thing to do has its nodes, its message, its fix as a command, and all its findings folded."""
    page = written(tmp_path, large_fleet())
    assert texts(r"<article.*?</h3>", page) == [
        "✗ FAIL rack=r07: speed",
        "✗ FAIL 3 nodes: speed",
        "✗ FAIL r07n09 gpu:0: bits",
    ]
    (several,) = re.findall(r'<article class="task" id="todo-2">.*?</article>', page, re.DOTALL)
    assert "r03n05, r12n20, r19n31" in several
    assert "<pre><code>nvidia-smi -q -d CLOCK,POWER,TEMPERATURE</code></pre>" in several
    assert [row[0] for row in page_tables(several)[0]] == ["node", "r03n05", "r19n31", "r12n20"]
    assert "Nothing: no node differs from the others." in Page(written(tmp_path, healthy_fleet())).text


def test_nodes_are_listed_by_verdict(tmp_path):
    """All nodes stand there, folded, by verdict; those of a slow group have the group's."""
    (rows,) = page_tables(section(written(tmp_path, large_fleet(racks=8, per_rack=4)), "verdicts"))
    racks = ", ".join(f"r0{rack}n[01-04]" for rack in (1, 2, 3, 4, 5, 6, 8))
    assert rows == [["verdict", "count", "nodes"], ["✗ FAIL", "4", "r07n[01-04]"], ["✓ PASS", "28", racks]]


def test_all_failed_nodes_are_listed(tmp_path):
    """Nodes that failed are all named, though nothing of their names can be folded; of those that passed, some."""
    runs = [node_run(f"{letter}{number}x{number}", device()) for letter in "abcdefghij" for number in (1, 3, 5, 7)]
    findings = [FleetFinding("own", "FAIL", "cold", run.node) for run in runs[:20]]
    (rows,) = page_tables(section(written(tmp_path, fleet_answer(runs, findings)), "verdicts"))
    assert [row[:2] for row in rows[1:]] == [["✗ FAIL", "20"], ["✓ PASS", "20"]]
    assert rows[1][2].startswith("a1x1, a3x3, a5x5, a7x7, b1x1")
    assert len(rows[1][2].split(", ")) == 20
    assert rows[2][2].endswith("and 8 more")


def test_few_nodes_have_all_their_numbers(tmp_path):
    """A row per node, the worst first: verdict, bits, the device that stands out, and a number per case with sign."""
    page = written(tmp_path, faulty_fleet())
    (rows,) = page_tables(section(page, "cells"))
    assert [row[0] for row in rows] == [
        *("node", "n03", "n05", "n02", "n09", "n07", "n12", "n11", "n06", "n04", "n01", "n10", "n08"),
    ]
    assert len(rows[0]) == 5 + len(CASES)
    assert rows[0][4:6] == ["over all cases", "forward, batch 32, float32"]
    assert rows[1][:6] == ["n03", "✗ FAIL", "✓ PASS", "gpu:1", "1.12", "✗ FAIL 1.12"]
    assert rows[2][:5] == ["n05", "✗ FAIL", "✗ FAIL", "", "1.00"]
    assert rows[3][:6] == ["n02", "? INCONCLUSIVE", "✓ PASS", "gpu:1", "1.10", "? INCONCLUSIVE 1.10"]
    assert rows[6] == ["n12", "? INCONCLUSIVE", "–", "", *["–"] * (1 + len(CASES))]
    assert 'id="map"' not in page
    assert pictures(page) == {}


def test_many_nodes_have_the_worst_ones_numbers(tmp_path):
    """Of many nodes forty have numbers: those with findings first, then three of a slow group, then the slowest."""
    (rows,) = page_tables(section(written(tmp_path, large_fleet()), "cells"))
    names = [row[0] for row in rows[1:]]
    assert len(names) == 40
    assert names[:4] == ["r12n20", "r19n31", "r03n05", "r07n09"]
    assert sum(name.startswith("r07") for name in names) == 4
    assert rows[0][4] == "forward, batch 128, mixed_bfloat16"  # in which all that are slow failed


def test_picture_has_every_node_and_case(tmp_path):
    """All thousand nodes are rows of 40 cells: a failed cell is filled, others are a mark with room around it."""
    found = pictures(written(tmp_path, large_fleet()))
    assert sum(len(cells) for cells in found.values()) == 1000
    assert {cells.shape[1:] for cells in found.values()} == {(40, 6, 6, 4)}
    filled = {title: (cells == RED).all((2, 3, 4)) for title, cells in found.items()}
    assert filled["r07"].all()
    assert np.flatnonzero(filled["r03"].all(1)).tolist() == [4]
    assert filled["r03"].sum() == 40
    assert np.argwhere(filled["r12"]).tolist() == [[19, 0]]
    assert not filled["r01"].any()
    assert not found["r01"][..., 0, :, 3].any()
    assert next(iter(found)) == "r07"


@pytest.mark.parametrize(
    ("ratio", "status", "shape"),
    [
        pytest.param(1.0, 0, "...... ...... ..##.. ..##.. ...... ......", id="cell=like the others"),
        pytest.param(1.05, 0, "...... .####. .####. .####. .####. ......", id="cell=slower"),
        pytest.param(0.9, 0, "...... ...... .##### .##### ...... ......", id="cell=faster"),
        pytest.param(1.2, 1, "#####. #...#. #...#. #...#. #####. ......", id="cell=inconclusive"),
        pytest.param(1.2, 2, "###### ###### ###### ###### ###### ######", id="cell=slow"),
        pytest.param(np.nan, -1, "...... ...... ...... ...... ...... ......", id="cell=not timed"),
        pytest.param(np.nan, 1, "#####. #...#. #...#. #...#. #####. ......", id="cell=invalid"),
    ],
)
def test_shapes_tell_cells_apart(tmp_path, ratio, status, shape):
    """Whatever a cell is shows in its shape, without its colour."""
    answer = healthy_fleet(41)
    table = answer.tables[0]
    table.ratios[20, 3], table.statuses[20, 3] = ratio, status
    cells = next(iter(pictures(written(tmp_path, answer)).values()))
    column = 0 if status > 0 else 3  # the cases that aren't well come first
    row = ["".join(".#"[int(alpha > 0)] for alpha in line) for line in cells[20, column, :, :, 3]]
    assert " ".join(row) == shape


def test_slow_rack_shows_in_the_map(tmp_path):
    """By each column asked for, groups have a tile per node, named with its verdict; a slow group is the first."""
    page = section(written(tmp_path, large_fleet(racks=8, per_rack=4)), "map")
    groups = re.findall(r'<div class="group">.*?</div>', page, re.DOTALL)
    assert Page(groups[0]).text.startswith("✗ r07 slow as a whole: 4 nodes · 1.09 × r07n01: FAIL, 1.09 ×")
    assert re.findall(r"#tile-(\w+)", groups[0]) == ["FAIL"] * 4
    assert [re.findall(r"#tile-(\w+)", each) for each in groups[1:8]] == [["PASS"] * 4] * 7
    assert texts(r"<(?:h3|summary)>By.*?</(?:h3|summary)>", page) == ["By rack", "By switch"]
    assert Page(groups[8]).text.startswith("✗ s1 4 failed, 28 passed")


def test_missing_nodes_have_tiles_of_their_own(tmp_path):
    """An expected node that wasn't heard of is in the map, in its group or in one that isn't stated."""
    columns = {"rack": {"n1": "r1", "n2": "r1"}}
    answer = fleet_answer([node_run("n1", device())], expected=("n1", "n2", "n3"), columns=columns, by=("rack",))
    groups = re.findall(r'<div class="group">.*?</div>', written(tmp_path, answer), re.DOTALL)
    assert {Page(each).text.split(" ")[1]: re.findall(r"#tile-(\w+)", each) for each in groups} == {
        "r1": ["PASS", "missing"],
        "not": ["missing"],
    }


def test_other_software_is_named(tmp_path):
    """What isn't the same on all nodes is in a table: what most have, and who has what else."""
    runs = [node_run(f"n{number}", device()) for number in range(1, 5)]
    runs[3] = node_run("n4", device(inventory={"driver": "550.1"}), machine={"kernel": "6.9.0"}, version="0.2.0")
    (rows,) = page_tables(section(written(tmp_path, fleet_answer(runs)), "inventory"))
    assert rows == [
        ["what", "most", "others"],
        ["alexnet-repro", "0.1.0 (3 nodes)", "0.2.0: n4"],
        ["kernel", "6.8.0-87-generic (3 nodes)", "6.9.0: n4"],
        ["device driver", "570.86.15 (3 nodes)", "550.1: n4"],
    ]


def test_what_is_no_fault_is_named(tmp_path):
    """What passed and is worth knowing is no thing to do; each is there once, with its nodes."""
    findings = [FleetFinding("inventory", "PASS", "has another kernel", node) for node in ("n1", "n2")]
    findings.append(FleetFinding("speed", "PASS", "one group is slower than another"))
    page = written(tmp_path, replace(healthy_fleet(), findings=findings))
    assert page_tables(section(page, "notes")) == [
        [["what", "nodes"], ["has another kernel", "n[1-2]"], ["one group is slower than another", "–"]]
    ]
    assert "<article" not in page


def test_files_left_out_are_named(tmp_path):
    """Files are named by the reason that they are left out for, the commonest first; of many, some."""
    refused = [RefusedFile(f"/r/{number}.json", "it isn't JSON") for number in range(15)]
    answer = replace(healthy_fleet(), fleet=replace(healthy_fleet().fleet, refused=[RefusedFile("a", "x"), *refused]))
    (rows,) = page_tables(section(written(tmp_path, answer), "files"))
    assert rows[1:] == [
        ["it isn't JSON", "15", ", ".join(f"/r/{number}.json" for number in range(12)) + ", and 3 more"],
        ["x", "1", "a"],
    ]


def test_history_is_drawn(tmp_path):
    """A device that drifts has a line of its runs, with dates and the ratio of the last to the first."""
    page = section(written(tmp_path, faulty_fleet()), "history")
    assert "2026-10-20 to 2026-11-24, 6 runs: the last takes 1.100 × the first's time" in Page(page).text
    (points,) = re.findall(r'<polyline points="(.*?)"', page)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == page.count("<circle") == 6


@pytest.mark.parametrize("case", ["", CASES[0], "unknown"], ids="case={}".format)
@pytest.mark.parametrize("node", ["n02", "n01", "unknown"], ids="node={}".format)
def test_history_without_runs_is_not_drawn(tmp_path, case, node):
    """A line needs two runs that timed the same; a finding without has none, and over all cases needs no case."""
    answer = replace(faulty_fleet(), findings=[replace(DRIFT, case=case, node=node)])
    drawn = "<polyline" in written(tmp_path, answer)
    assert drawn == (node == "n02" and case != "unknown")


def test_forged_texts_are_text(tmp_path):
    """Whatever a file holds, the page has no tag, address or style of it, and nothing that turns what is beside it."""
    page = written(tmp_path, harmful_fleet())
    tags = Page(page).tags
    assert {tag for tag, _ in tags} & {"script", "iframe", "object", "link", "base", "form"} == set()
    assert [tag for tag, _ in tags].count("style") == 1
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in tags if tag == "img")
    assert all(each["href"].startswith("#") for _, each in tags if "href" in each)
    assert not [name for _, each in tags for name in each if name.startswith("on")]
    assert not set(page) & set("\u202e\u2066\x00\x1b\ud800")
    assert FORGED in html.unescape(page)
    assert "{{ 7 * 7 }}" in page


def test_page_needs_nothing_else(tmp_path):
    """The page has no script, loads nothing, and says so to the browser."""
    page = written(tmp_path, large_fleet())
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:image/png)""", page)
    assert not re.findall(r"url\(|@import|<script", page)


def test_same_answer_gives_the_same_page(tmp_path):
    """The page depends on the answer alone."""
    assert written(tmp_path / "a", faulty_fleet()) == written(tmp_path / "b", faulty_fleet())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, 1e-38, -1.0, 0.0], ids="ratio={}".format)
def test_absurd_ratios(tmp_path, value):
    """A ratio that is no number, or absurd, breaks no page, and is no zero."""
    answer = healthy_fleet(41)
    answer.tables[0].ratios[:, 3], answer.tables[0].shifts[5] = value, value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (rows,) = page_tables(section(written(tmp_path, answer), "cells"))
    shown = {row[4 + 3] for row in rows[1:]}
    assert shown == ({f"{value:.0e}".replace("e+0", "e+")} if value > 1 and value < np.inf else shown)
    assert not shown & {"inf", "nan", "-inf", "-1.00"}


def noisy_fleet(racks, per_rack):
    """Return a fleet in which every cell is something else: no picture compresses worse."""
    answer = large_fleet(racks, per_rack)
    table = answer.tables[0]
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.05, table.ratios.shape).astype(np.float32)
    return replace(
        answer,
        tables=[replace(table, ratios=np.exp(noise), statuses=random.integers(0, 3, noise.shape).astype(np.int8))],
    )


@pytest.mark.parametrize(
    ("make", "most_bytes", "most_seconds"),
    [
        pytest.param(healthy_fleet, 300e3, 5, id="nodes=8"),
        pytest.param(large_fleet, 1.5e6, 10, id="nodes=1000"),
        pytest.param(lambda: noisy_fleet(25, 40), 1.5e6, 10, id="nodes=1000-noisy"),
        pytest.param(lambda: noisy_fleet(250, 40), 5e6, 60, id="nodes=10000-noisy", marks=pytest.mark.slow),
    ],
)
def test_page_is_small_and_soon_there(tmp_path, make, most_bytes, most_seconds):
    """A page of 40 cases is small enough to be sent, and written while one waits, whatever its cells are."""
    answer = make()
    start = time.perf_counter()
    page = written(tmp_path, answer)
    assert time.perf_counter() - start <= most_seconds
    assert len(page.encode()) <= most_bytes


def test_many_distinct_findings_and_groups(tmp_path):
    """Of thousands of distinct findings, cohorts, groups and facts the page has the first, and counts the others."""
    names = [f"n{number}x" for number in range(3000)]
    findings = [FleetFinding("own", "FAIL", f"cause {name}y", name, fix=f"see to {name}y") for name in names]
    runs = [node_run(name, device(cases=CASES[:2]), machine={f"fact {name}": name}) for name in names]
    columns = {"rack": {name: name for name in names}}
    page = written(tmp_path, fleet_answer(runs, findings, columns=columns, by=("rack",)))
    assert len(re.findall("<article", page)) == 30
    assert "and 2,970 more, in fleet.json" in page
    assert "and 2,700 more, in fleet.json" in section(page, "map")
    assert len(page) < 3e6


def test_page_that_cannot_be_written(tmp_path):
    """Where the page can't be written, the error names it and says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"fleet\.html can't be written.*name another folder"):
        write_page(healthy_fleet(), tmp_path / "file")


@pytest.mark.parametrize("text", HARMFUL.values(), ids=[f"text={name}" for name in HARMFUL])
def test_any_text_as_a_fix_is_shown(tmp_path, text):
    """A fix of any text is text or a command, whole, and never part of the page's own."""
    finding = FleetFinding("own", "FAIL", text, "n1", fix=f"sudo {text}")
    page = written(tmp_path, fleet_answer([node_run("n1", device())], [finding]))
    assert len(re.findall(r"<pre><code>sudo .*?</code></pre>", page, re.DOTALL)) == 1
    assert page.count("</html>") == page.count("</style>") == 1
