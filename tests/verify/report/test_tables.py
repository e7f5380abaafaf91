"""Tables of results as text: what was measured, aligned, at most 100 columns wide, whatever a file holds."""

import math
from dataclasses import asdict

import pytest

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import (
    TextTable,
    cost_table,
    device_table,
    layer_lines,
    layer_tables,
    overhead_lines,
    overhead_tables,
    scaling_table,
    throughput_table,
)
from tests.helpers.html_pages import page_tables, reported
from tests.helpers.results_files import WELL, run

STEP = Timing(
    "step[batch=128]",
    "cpu:0",
    "float32",
    [1.0, 1.998, 2.0, 2.002, 2.004],  # one was fast by chance
    images=128,
    flop=700_000_000_000,
    peak=4e11,
    roofline=1.9,
    bottleneck="compute",
    pipelined=1.9,
    first=2.5,
    peak_memory=3_200_000_000,
)
FORWARD = Timing(
    "forward[batch=1]",
    "cpu:0",
    "float32",
    [0.0152, 0.016, 0.0168],
    images=1,
    flop=2_000_000_000,
    roofline=0.0168,
    bottleneck="memory",
    layer="dense",
)
DRAW = Timing("draw_train", "cpu:0", "", [0.000128] * 3, images=128)
ALONE = {"images": 64, "seconds": {"gpu:0": 0.1, "gpu:1": 0.2, "gpu:2": 0.1}, "slow": ["gpu:1"]}
POINT = {"kind": "weak", "devices": 4, "images": 64, "seconds": 0.128, "communicating": 0.21875}
FOUND = [
    Finding("stragglers", "FAIL", "gpu:1 is behind", device="gpu:1", data=ALONE),
    Finding("scaling", "INCONCLUSIVE", "weak", number=0.78125, bound=0.7917, data=POINT),
    Finding("gpu_bitwise_parity", "PASS", "another check", data={"seconds": {"gpu:9": 1.0}}),
]


def test_rows_are_aligned_in_their_own_order():
    """Seconds get a fitting unit, rates follow from the median, and what isn't known is a dash; over 100 % stays so."""
    assert str(throughput_table([STEP, FORWARD, DRAW])).splitlines() == [
        "case              median    IQR   images/s  % peak  % roofline  bottleneck",
        "step, batch 128      2 s  0.2 %         64    88 %        95 %  compute",
        "forward, batch 1   16 ms  5.0 %       62.5       –       105 %  memory, dense",
        "draw_train        128 µs  0.0 %  1,000,000       –           –  –",
    ]


def test_costs_are_columns_where_there_are_any():
    """Pipelined and first rounds, memory and conditions; a column without values is left out, or all conditions."""
    timings = [STEP, Timing("draw_train", "cpu:0", "", [1.0], conditions=Conditions(load=1.25))]
    assert str(cost_table(timings)).splitlines() == [
        "case             pipelined  first round   memory  load",
        "step, batch 128      1.9 s        2.5 s  3.20 GB     –",
        "draw_train               –            –        –  1.25",
    ]
    assert "load" not in cost_table(timings, conditions=False).headings
    assert str(cost_table([DRAW])) == ""


def test_invalid_timing_has_no_throughput():
    """A timing whose result was wrong is shown as invalid."""
    assert str(throughput_table([STEP], frozenset({STEP.case}))).splitlines()[1:] == [
        "step, batch 128     2 s  0.2 %   invalid       –           –  compute",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.0, "1 s"), (0.9994, "999.4 ms"), (0.001, "1 ms"), (0.0009994, "999.4 µs")]
)
def test_unit_is_the_largest_that_the_duration_reaches(seconds, shown):
    """Seconds from one second, milliseconds from one millisecond, microseconds below."""
    assert f" {shown} " in str(throughput_table([Timing("case", "cpu:0", "", [seconds], images=1)]))


def test_empty_table_is_no_text():
    """No rows, no headings."""
    assert str(throughput_table([])) == ""


@pytest.mark.parametrize(
    "environment", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "40"}], ids="set={}".format
)
def test_lines_are_plain_and_fit(monkeypatch, environment):
    """Whatever the terminal, there are no colours nor markup, and long names are wrapped at 100 columns."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = "train_step[device=gpu:0-batch=128-precision=mixed_bfloat16-xla=on]"
    fields = {"images": 128, "flop": 10**12, "peak": 1e15, "roofline": 0.5, "bottleneck": "compute", "layer": "dense_2"}
    text = str(throughput_table([Timing(name, "gpu:0", "mixed_bfloat16", [1.0] * 5, **fields)]))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert text.replace("\n", "").isprintable()
    assert str(TextTable(("a", "b"), [("[red]x[/red]", ":smile:")])).splitlines()[1].split() == [
        "[red]x[/red]",
        ":smile:",
    ]


def test_devices_are_compared():
    """Images/s of each alone, of the best, and its own verdict, the slowest named; then of all together."""
    assert str(device_table(FOUND)).splitlines() == [
        "device alone  images/s  of the best  verdict  note",
        "gpu:0            640.0      100.0 %  PASS",
        "gpu:1            320.0       50.0 %  FAIL     slowest",
        "gpu:2            640.0      100.0 %  PASS",
    ]
    assert str(scaling_table(FOUND)).splitlines() == [
        "scaling  devices  images each  images/s  efficiency  at least  communicating  verdict",
        "weak           4           64   2,000.0      78.1 %    79.2 %         21.9 %  INCONCLUSIVE",
    ]
    assert [str(table(FOUND[2:])) for table in (device_table, scaling_table)] == ["", ""]


def test_report_shows_both_tables(tmp_path):
    """The page has a row per device and a row per number of devices, the slowest named."""
    page, *_ = reported(tmp_path, run(fast=[{**WELL, **vars(each)} for each in FOUND]))
    devices, scaling = page_tables(page)[-2:]
    assert devices[2] == ["gpu:1", "320.0", "50.0 %", "✗ FAIL", "slowest"]
    assert scaling[1][-4:] == ["78.1 %", "79.2 %", "21.9 %", "? INCONCLUSIVE"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=f"data={data}")
        for data in ({}, {"seconds": 1}, {"seconds": {"gpu:0": "fast"}, "slow": 3}, {"seconds": {"gpu:0": -1.0}})
    ],
)
def test_data_that_isnt_what_a_run_writes_has_no_row(data):
    """A file's finding may hold any data: no row, and no error."""
    found = [Finding(check, "FAIL", "forged", number=1.0, data=data) for check in ("stragglers", "scaling")]
    assert [*device_table(found).rows, *scaling_table(found).rows] == []


def cell(precision, deterministic, xla, *seconds, why=""):
    """Return a combination on cpu:0 with these seconds."""
    return OverheadCell("cpu:0", precision, deterministic, xla, 8, seconds, why)


CELLS = [
    cell("float32", False, False, 0.2, 0.2, 0.2),
    cell("float32", False, True, 0.3, 0.302, 0.3),
    cell("float32", True, False, 0.19, 0.21, 0.21),
    cell("float32", True, True, why="no such step"),
    cell("mixed_bfloat16", False, False, 0.1, 0.1, 0.101),
    cell("mixed_bfloat16", False, True, 0.15, 0.6, 0.02),
    cell("mixed_bfloat16", True, False, 0.1, 0.1, 0.101),
    cell("mixed_bfloat16", True, True, why="no such step"),
]


def test_overhead_within_noise_is_none():
    """An update's time, and what each of the three costs, visit by visit; what noise may have made is none seen."""
    *title, table, reason = overhead_lines(CELLS)
    assert title == ["", "overhead of determinism, precision and XLA on cpu:0, per update of 8"]
    assert str(table).splitlines() == [
        "precision       XLA     ms  deterministic        determinism     XLA costs  against float32",
        "float32         off  200.0          210.0  none seen (±15 %)             –                –",
        "float32          on  300.0              –                  –  +50 % (±1 %)                –",
        "mixed_bfloat16  off  100.0          100.0   none seen (±0 %)             –     -50 % (±1 %)",
        "mixed_bfloat16   on  150.0              –                  –     too noisy        too noisy",
    ]
    assert reason == "–: no such step"


@pytest.mark.parametrize(
    "seconds", [(), (1.0,), (0.0, 0.0), (-1.0, 1.0), (math.nan, math.nan), (math.inf, 1.0), (1e308, 1e-308)]
)
def test_forged_overhead(seconds):
    """Whatever times a file states, there is a table, and nothing is claimed of what can't be compared."""
    cells = [cell("float32", False, False, 1.0, 1.0), cell("float32", True, False, *seconds)]
    (row,) = overhead_tables(cells)["cpu:0"].rows
    assert row[4] in ("–", "too noisy")


@pytest.mark.parametrize("first", [True, False], ids=["order=large first", "order=small first"])
def test_forged_overhead_on_the_page(tmp_path, first):
    """The ratio of two times that a file states may be beyond any number, either way: the page is written."""
    times = [[1e308, 1.0], [1e-308, 1.0]][:: 1 if first else -1]
    cells = [asdict(cell("float32", deterministic, False, *times[deterministic])) for deterministic in (False, True)]
    page, *_ = reported(tmp_path, run() | {"overheads": cells})
    assert "too noisy" in page


def layer(name, direction, seconds, roofline, device="cpu:0"):
    """Return a layer's timing in one direction, of a batch of 32 in float32."""
    return LayerTiming(device, "float32", 32, name, direction, seconds, roofline)


LAYERS = [
    layer("resize", "forward", 0.004, 0.002),
    layer("conv2d", "forward", 0.05, 0.04),
    layer("conv2d", "backward", 0.1, 0.02),
    layer("conv2d", "update", 0.0001, 0.00004),
    layer("dense", "forward", 0.0125, 0.015),
    layer("dense", "backward", 0.0, 0.001),
    layer("dense", "update", 1.2, 0.03),
]


def test_layers_are_rows():
    """Milliseconds by the roofline and measured, the one as a share of the other; a row of all; then the worst.

    Of what was lost in noise nothing is known, and nothing is added up.
    """
    *title, table, worst = layer_lines(LAYERS)
    assert title == ["", "layer by layer on cpu:0, float32, batch 32"]
    assert str(table).splitlines() == [
        "          forward              backward              update",
        "layer   bound, ms    ms    %  bound, ms   ms   %  bound, ms     ms   %  lost, ms",
        "resize          2     4   50          –    –   –          –      –   –         2",
        "conv2d         40    50   80         20  100  20       0.04    0.1  40      90.1",
        "dense          15  12.5  120          –    –   –         30  1,200   2     1,168",
        "all            57  66.5   86         20  100  20         30  1,200   3     1,260",
    ]
    assert worst == (
        "most time is lost in dense update 1,170 ms (2 % of its roofline), "
        "conv2d backward 80 ms (20 % of its roofline), conv2d forward 10 ms (80 % of its roofline)"
    )


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 0.0, 1e308])
def test_forged_layers(number):
    """Whatever times a file states, there is a table of at most 100 columns."""
    found = [layer("dense", "forward", number, 1.0), layer("dense_1", "update", 1.0, number)]
    for line in "\n".join(map(str, layer_lines(found))).splitlines()[:5]:
        assert len(line) <= 100


def test_layers_of_a_step_fit():
    """A table of all layers, with figures of four digits, is at most 100 columns wide."""
    names = [(each.name, direction) for each in documented.LAYERS for direction in ("forward", "backward", "update")]
    table = next(iter(layer_tables([layer(*name, 4.321, 1.234) for name in names]).values()))
    lines = str(table).splitlines()
    assert len(lines) == 2 + len(documented.LAYERS) + 1
    assert max(map(len, lines)) <= 100
