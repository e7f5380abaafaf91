"""Tables of results as text: what was measured, aligned, at most 100 columns wide, whatever a file holds."""

import pytest

from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import (
    TextTable,
    cost_table,
    device_table,
    overhead_table,
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


def step(seconds, message=""):
    """Return a finding on the time of a step."""
    return Finding("overhead", "PASS" if seconds else "INCONCLUSIVE", message, number=seconds)


def test_overhead_is_relative_to_the_fastest():
    """A row per precision, a column per determinism and XLA, milliseconds and how many times the least."""
    cells = {
        ("off", "float32", "off"): step(0.3),
        ("off", "float32", "on"): step(0.2),
        ("off", "mixed_bfloat16", "off"): step(0.1),
        ("off", "mixed_bfloat16", "on"): step(0.125),
        ("on", "float32", "off"): step(1.5),
        ("on", "float32", "on"): step(0.25),
        ("on", "mixed_bfloat16", "off"): step(0.15),
        ("on", "mixed_bfloat16", "on"): step(0.2),
    }
    assert overhead_table("cpu:0", cells).splitlines() == [
        "",
        "overhead of determinism, precision and XLA on cpu:0",
        "                determinism off  determinism off    determinism on  determinism on",
        "ms per step             XLA off           XLA on           XLA off          XLA on",
        "float32           300.0 (3.00×)    200.0 (2.00×)  1,500.0 (15.00×)   250.0 (2.50×)",
        "mixed_bfloat16    100.0 (1.00×)    125.0 (1.25×)     150.0 (1.50×)   200.0 (2.00×)",
    ]


def test_missing_overhead_has_its_reason():
    """A cell without a number is `none`, and each reason is given once, below."""
    cells = {
        ("off", "tf32", "off"): step(0.1),
        ("off", "tf32", "on"): step(None, "XLA can't be used here"),
        ("off", "float32", "off"): step(0.2),
        ("off", "float32", "on"): step(None, "XLA can't be used here"),
    }
    assert [line.split() for line in overhead_table("gpu:1", cells).splitlines()[4:]] == [
        ["tf32", "100.0", "(1.00×)", "none"],
        ["float32", "200.0", "(2.00×)", "none"],
        ["none:", "XLA", "can't", "be", "used", "here"],
    ]


def test_no_overhead_at_all_is_shown():
    """Where nothing could be measured, the table and every reason are there all the same."""
    cells = {("off", "float32", "off"): step(None, "one"), ("on", "float32", "off"): step(None, "another")}
    lines = overhead_table("cpu:0", cells).splitlines()[4:]
    assert [lines[0].split(), *lines[1:]] == [["float32", "none", "none"], "none: one", "none: another"]
