"""Plots: valid SVG, the same bytes each time, readable without colour and on a phone, one for each thing to see."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import plots

pytestmark = pytest.mark.filterwarnings("error")  # such as that of a layout that found no room
PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
RATES = Calibration("gpu:0", {"float32": 5e13, "tf32": 4e14}, 3e12)
GPU = {"seconds": (0.1, 0.9, 1.7), "gpu_mhz": (1755, 1500, 1400), "temperature": (60, 70, None)}
UNRECORDED = "no clock or temperature recorded"
SVG = "{http://www.w3.org/2000/svg}"
LINE = r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 1.5'
ANOTHER_PROCESS = """
import sys, matplotlib
from tests.verify.report import test_plots
matplotlib.rcParams.update({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": "other", "lines.linewidth": 9})
print("".join(each.svg for each in test_plots.every_kind()), end="")
assert matplotlib.rcParams["font.size"] == 30 and "matplotlib.pyplot" not in sys.modules
"""


def case(title, batch=128, precision="float32", device="gpu:0", rounds=(1.0, 1.1, 1.2), **fields):
    """Return a case of as many images as its batch has."""
    name = f"{title}[device={device}-batch={batch}-precision={precision}]"
    return Timing(name, device, precision, rounds, **{"images": batch, **fields})


def work(batch=128, precision="float32", title="forward", device="gpu:0", **fields):
    """Return a case of 1 TFLOP and 10 GB in 0.1 s: 100 FLOP per byte, 10 TFLOP/s."""
    return case(title, batch, precision, device, (0.1,), **{"flop": 1e12, "bytes": 1e10, **fields})


def speed(status="PASS", number=1.1, bound=1.03, device="gpu:0", **data):
    """Return what the gate found of a case."""
    name, data = f"forward[device={device}-batch=1-precision=tf32]", {"low": 1.05, "high": 1.15, **data}
    return Finding("speed", status, "a case", device=device, number=number, bound=bound, data=data, case=name)


def learned(**data):
    """Return what the check of learning found."""
    return Finding("learning", "PASS", "learned", device="gpu:1", precision="tf32", data=data)


def steps(device="gpu:0", rounds=(0.5, 0.5, 0.5, 0.5), **samples):
    """Return the drawing of a case with such samples."""
    name = f"train_step[device={device}-batch=32]"
    (drawing,) = plots.step_times([Timing(name, device, "float32", rounds, samples=samples)])
    return drawing


def every_kind():
    """Return every kind of drawing."""
    cases = [case(title, b, p) for title in ("forward", "train_step") for b in (1, 128) for p in PRECISIONS]
    return [
        *plots.throughput(cases),
        *plots.step_times(cases),
        *plots.against_reference([speed()]),
        *plots.rooflines([work()], [RATES]),
        plots.learning_curve("quick", range(100), [1.0] * 100, [0.5] * 100, [(50, 0.8)]),
    ]


@pytest.fixture(scope="module")
def everything():
    """Every kind of drawing."""
    return every_kind()


def texts(drawing):
    """Return the texts in a drawing, in their order, as a reader or a search finds them."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


def lines(drawing):
    """Return the numbers of points of the blue lines: the series that are drawn."""
    return [len(re.findall(r"[ML] ", path)) for path in re.findall(LINE, drawing.svg)]


def places(path):
    """Return the places of a path's points."""
    return [tuple(map(float, each)) for each in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)]


def test_drawings_are_xml_that_loads_nothing(everything):
    """Each is XML whose root is an SVG; none has a script, an image, or an address other than XML's own names."""
    assert len(everything) == 2 + 8 + 3
    for drawing in everything:
        root = ET.fromstring(drawing.svg)
        assert root.tag == f"{SVG}svg"
        tags = {each.tag.removeprefix(SVG) for each in root.iter()}
        assert tags <= {"svg", "defs", "style", "g", "path", "text", "use", "clipPath", "rect", "pattern"}
        assert set(re.findall(r"https?://[^\"]*", drawing.svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_same_bytes_in_another_process(everything):
    """The same numbers give the same bytes elsewhere, whatever the user's backend and settings; these stay."""
    environment = {**os.environ, "MPLBACKEND": "pdf", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", ANOTHER_PROCESS]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout == "".join(each.svg for each in everything)


def test_matplotlib_is_imported_to_draw():
    """Importing the report doesn't import Matplotlib: drawing does."""
    code = "import sys, alexnet_repro.verify.report.page; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_ids_differ_between_drawings(everything):
    """Drawings stand side by side on one page: no id is in two of them, and each that is used is there."""
    seen = set()
    for drawing in everything:
        ids = set(re.findall(r' id="([^"]+)"', drawing.svg))
        used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', drawing.svg))
        assert {first or second for first, second in used} <= ids
        assert not ids & seen
        seen |= ids


def test_drawings_can_be_read_on_a_phone(everything):
    """Every letter is at least 16 CSS pixels high, 12 points, and no drawing is wider than 328 pixels, 246 points."""
    for drawing in everything:
        sizes = re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", drawing.svg)
        assert min(map(float, sizes)) >= 12
        assert float(ET.fromstring(drawing.svg).get("width").removesuffix("pt")) <= 246


def test_bars_are_named_beside_themselves():
    """A bar has its precision and its images/s beside it, under its batch: no legend, no colour is needed."""
    cases = [case("forward", 1, "float32", images=1), case("forward", 128, "float32"), case("forward", 128, "tf32")]
    (drawing,) = plots.throughput(cases)
    assert sorted(texts(drawing)) == sorted(
        ["forward, gpu:0: images/s", "batch 1", "float32", "0.909", "batch 128", "float32", "116", "tf32", "116"]
    )


def test_invalid_case_has_no_bar():
    """A failed case is there by name, as invalid, without a bar; nor does it set the others' scale."""
    cases = [case("forward", precision="float32"), case("forward", precision="tf32", rounds=(1e-9,))]
    invalid, alone = plots.throughput(cases, {cases[1].case})[0], plots.throughput(cases[:1])[0]
    assert {"tf32", "invalid"} <= set(texts(invalid))
    assert invalid.svg.count("stroke-width: 0.8; stroke-linejoin: miter") == 1
    assert alone.svg.count("stroke-width: 0.8; stroke-linejoin: miter") == 1


def test_one_drawing_per_device_and_kind():
    """Devices and kinds of case each have a drawing; cases without batch or precision have none."""
    cases = [case(title, device=device) for title in ("forward", "train_step") for device in ("gpu:0", "gpu:1")]
    cases += [Timing("draw_train[batch=128]", "cpu:0", "", (1.0,), images=128)]
    cases += [Timing("forward[device=gpu:1-batch=128-precision=tf32-xla=on]", "gpu:1", "tf32", (1.0,), images=128)]
    assert [each.name for each in plots.throughput(cases)] == [
        "throughput-gpu-0-forward",
        "throughput-gpu-1-forward",
        "throughput-gpu-0-train-step",
        "throughput-gpu-1-train-step",
        "throughput-gpu-1-forward-xla-on",
    ]
    assert len(plots.step_times(cases)) == 2
    cases = [work(), work(precision="tf32"), work(device="gpu:1"), work(title="train_step")]
    assert [each.name for each in plots.rooflines(cases, [RATES, replace(RATES, device="gpu:1")])] == [
        "roofline-gpu-0-forward",
        "roofline-gpu-1-forward",
        "roofline-gpu-0-train-step",
    ]


def test_forged_names_are_text():
    """Names from a file are neither markup, nor mathematics, nor paths; two that look alike are two files."""
    forged = "</text><script>alert(1)</script>$\\frac{1}$"
    cases = [case("../../forward", f"1-{forged}", forged, device, images=1) for device in (forged, forged + "!")]
    drawn = plots.throughput(cases)
    assert len({each.name for each in drawn}) == 2
    for each in drawn:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert "<script" not in each.svg
        assert any(forged in text for text in texts(each))


def test_reference_is_drawn_with_its_bound():
    """A figure per device: each case with its ratio and a sign where it hasn't passed, its interval, and its bound."""
    found = [speed(), speed("FAIL"), speed("INCONCLUSIVE"), speed(device="gpu:1"), Finding("golden", "PASS", "bits")]
    first, second = plots.against_reference(found)
    assert (first.name, second.name) == ("reference-gpu-0", "reference-gpu-1")
    assert [text for text in texts(first) if text.startswith("1.100")] == ["1.100", "1.100 ✗", "1.100 ?"]
    assert texts(first).count("forward, batch 1, tf32") == 3
    for drawing, count in ((first, 3), (second, 1)):
        assert drawing.svg.count('style="fill: #1b1f24; stroke: #1b1f24; stroke-width: 2"') == count  # bounds
        assert drawing.svg.count('style="fill: none; stroke: #0b5cad; stroke-width: 2"') == count  # intervals


@pytest.mark.parametrize(
    "finding",
    [
        pytest.param(speed(low=None), id="low=absent"),
        pytest.param(speed(low="1"), id="low=text"),
        pytest.param(speed(high=float("inf")), id="high=inf"),
        pytest.param(speed(high=10**400), id="high=huge"),
        pytest.param(speed(number=None), id="number=absent"),
        pytest.param(speed(bound=0.0), id="bound=0"),
        pytest.param(Finding("speed", "INCONCLUSIVE", "no reference is on file"), id="data=none"),
    ],
)
def test_findings_without_numbers_are_not_drawn(finding):
    """A case without a reference, an older file's, and whatever else isn't numbers has no figure."""
    assert plots.against_reference([finding]) == []


def test_roofs_and_batches_are_named():
    """Each precision has its peak beside its marker, memory its rate, and the smallest and largest batch a number."""
    (drawing,) = plots.rooflines([work(b, flop=b * 1e10, bytes=1e9) for b in (1, 32, 512)], [RATES])
    found = texts(drawing)
    assert {"forward, gpu:0: roofline", "FLOP per byte", "FLOP/s", "float32, 50 TFLOP/s", "memory, 3 TB/s"} <= set(
        found
    )
    assert [each for each in found if each in ("1", "32", "512")] == ["1", "512"]


def test_batches_cover_nothing():
    """Two precisions at one place have one number between them above and below it, and a third has none."""
    cases = [work(precision=each) for each in PRECISIONS]
    (drawing,) = plots.rooflines(cases, [Calibration("gpu:0", dict.fromkeys(PRECISIONS, 5e13), 3e12)])
    assert texts(drawing).count("128") == 2


def test_a_case_lies_where_its_work_is():
    """Of two cases, ten times the operations for a byte lie a decade further right, ten times the rate a decade up."""
    cases = [work(1), work(2, flop=1e13)]  # intensity and rate ten times as large
    (drawing,) = plots.rooflines(cases, [Calibration("gpu:0", {"float32": 2e14}, 3e12)])
    path = re.search(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 0.7', drawing.svg)[1]
    (x0, y0), (x1, y1) = places(path)
    roof = re.search(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #1b1f24; stroke-width: 1.5', drawing.svg)[1]
    (a, b), (c, d) = places(roof)
    assert (y1 - y0) / (x1 - x0) == pytest.approx((d - b) / (c - a), rel=1e-3)  # the slope of memory is one decade each
    assert x1 > x0
    assert y1 < y0  # upwards


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        pytest.param({}, {"device": "gpu:1"}, id="rates=of another"),
        pytest.param({"precision": "mixed_float16"}, {}, id="rates=of other precisions"),
        pytest.param({}, {"matmul": {"float32": 0.0}}, id="rate=0"),
        pytest.param({}, {"matmul": {"float32": math.inf}}, id="rate=inf"),
        pytest.param({}, {"memory": math.nan}, id="memory=nan"),
        pytest.param({"bytes": 0}, {}, id="bytes=unknown"),
        pytest.param({"flop": 0}, {}, id="flop=none"),
        pytest.param({"precision": "other"}, {"matmul": {"other": 1e12}}, id="precision=unknown"),
    ],
)
def test_unknown_work_or_rates_are_not_drawn(fields, rates):
    """Without a calibration, work or speed there is no roofline, and no error; nor of an invalid case."""
    assert plots.rooflines([work(**fields)], [replace(RATES, **rates)]) == []
    assert plots.rooflines([work()], []) == []
    assert plots.rooflines([work()], [RATES], {work().case}) == []


def test_precisions_differ_without_colour():
    """One precision's bars are plain, the others' have three hatches; markers and dashes of roofs differ as well."""
    (bars,) = plots.throughput([case("forward", 128, precision) for precision in PRECISIONS])
    patterns = set(re.findall(r"<pattern id=\"([^\"]+)\"", bars.svg))
    assert sorted(bars.svg.count(f"fill: url(#{each})") for each in patterns) == [1, 1, 1]
    (drawing,) = plots.rooflines([work(precision=each) for each in RATES.matmul], [RATES])
    markers = set(re.findall(r'<use xlink:href="#([^"]+)"[^>]*style="fill: #0b5cad', drawing.svg))
    shapes = {re.search(rf'<path id="{each}" d="([^"]*)"', drawing.svg)[1] for each in markers}
    assert len(shapes) == 2
    assert drawing.svg.count("stroke-dasharray: 9,3") == 2


THOUSAND = tuple(1 + n / 1e5 for n in range(1000))


@pytest.mark.parametrize(
    ("rounds", "samples", "axis"),
    [
        pytest.param((1.0,), {}, ["round"], id="rounds=1"),
        pytest.param((1.0, math.nan, math.inf), GPU, ["round"], id="rounds=nan and inf"),  # have no place on a clock
        pytest.param((0.0, 0.0), {}, ["round"], id="rounds=0"),
        pytest.param(THOUSAND, {}, ["round, by medians of up to 5"], id="rounds=1000"),
        pytest.param(THOUSAND, GPU, ["seconds", "rounds, by medians of up to 5"], id="rounds=1000, sampled"),
    ],
)
def test_any_rounds_can_be_drawn(rounds, samples, axis):
    """One round, rounds that are no numbers, and more rounds than points: of these, medians, as the axis says."""
    drawing = steps(rounds=rounds, **samples)
    assert [each for each in texts(drawing) if "round" in each or each == "seconds"] == axis
    assert len(drawing.svg) < 40_000


@pytest.mark.parametrize(
    ("device", "samples", "labels"),
    [
        pytest.param("gpu:0", GPU, ["clock of the GPU: GHz", "temperature: °C"], id="recorded=clock and temperature"),
        pytest.param("gpu:0", {**GPU, "temperature": (None,) * 3}, ["clock of the GPU: GHz"], id="recorded=clock"),
        pytest.param("gpu:0", {"seconds": (0.1,), "cpu_mhz": (2000,)}, [], id="recorded=another's clock"),
        pytest.param(
            "cpu:0", {"seconds": (0.1,), "cpu_mhz": (2000,)}, ["clock of the processors: GHz"], id="recorded=cpu"
        ),
        pytest.param("cpu:0", {"seconds": (0.1,), "load": (1,)}, [], id="recorded=load"),
        pytest.param("cpu:0", {}, [], id="recorded=nothing"),
    ],
)
def test_clock_and_temperature_stand_below_the_rounds(device, samples, labels):
    """Each that was recorded has a panel over the same seconds; where none was, the axis and description say so."""
    drawing = steps(device, **samples)
    found = texts(drawing)
    assert [each for each in found if each.endswith((": GHz", ": °C"))] == labels
    assert ("seconds" in found, "round" in found) == (bool(labels), not labels)
    assert (UNRECORDED in found) == (not labels)
    assert ("neither clock nor temperature was recorded" in drawing.description) == (not labels)
    assert len(lines(drawing)) == 1 + len(labels)


def test_rounds_stand_where_they_began():
    """Rounds of 1, 2 and 3 seconds begin at 0, 1 and 3: the distances of the points are as 1 to 2."""
    drawing = steps(rounds=(1.0, 2.0, 3.0), **GPU)
    (first, _), (second, _), (third, _) = places(re.search(LINE, drawing.svg)[1])
    assert (third - second) / (second - first) == pytest.approx(2, rel=1e-3)


def test_noise_looks_like_noise():
    """Rounds that differ by 1 % take a small part of their axis: less than a tenth of its height."""
    drawing = steps(rounds=(1.0, 1.01, 1.0, 1.0))
    heights = [y for _, y in places(re.search(LINE, drawing.svg)[1])]
    assert 0 < max(heights) - min(heights) < 0.1 * 0.8 * 72


@pytest.mark.parametrize(
    ("reasons", "shown"),
    [
        pytest.param((0, 0x20, 0x24), "× throttled by its power limit and heat (software slowdown)", id="reasons=heat"),
        pytest.param((0, 0x1, None), "", id="reasons=idle"),
    ],
)
def test_throttling_is_marked_and_named(reasons, shown):
    """Samples with a throttle reason are crossed, and the reasons are named under the figure."""
    found = steps(**GPU, throttle_reasons=reasons)
    assert " ".join(each for each in texts(found) if "throttled" in each or "slowdown" in each) == shown
    assert (steps(**GPU).svg.count("<use") < found.svg.count("<use")) == bool(shown)


def test_curve_of_a_check():
    """The losses and accuracies that the check kept are drawn, over images."""
    (drawing,) = plots.learning_curves([learned(batch=20, losses=[2.0, 1.0, 0.5], accuracies=[0.1, 0.5, 1.0])])
    assert drawing.name == "learning-gpu-1-tf32"
    assert drawing.description == "Loss and accuracy of gpu:1, tf32 over 60 images, 3 updates"
    assert {each for each in texts(drawing) if each[0].isalpha()} == {"images seen", "gpu:1, tf32: loss", "accuracy"}
    assert lines(drawing) == [3, 3]


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        pytest.param({}, [], id="data=none"),
        pytest.param({"batch": 20}, [], id="losses=absent"),
        pytest.param({"losses": [1.0], "batch": 0}, [], id="batch=0"),
        pytest.param({"losses": [1.0], "batch": "inf"}, [], id="batch=inf"),
        pytest.param({"losses": "abc", "batch": 20}, [], id="losses=text"),
        pytest.param({"losses": [1.0, {}], "batch": 20}, [], id="losses=objects"),
        pytest.param({"losses": [10**400], "batch": 20}, [], id="losses=huge"),
        pytest.param({"losses": [2.0, "nan", 1.0], "batch": 20}, [2], id="losses=nan"),
        pytest.param({"losses": [2.0, 1.0], "batch": 20, "accuracies": [1.0]}, [2], id="accuracies=fewer"),
    ],
)
def test_curve_of_any_finding(data, drawn):
    """What a file holds instead of numbers has no curve; a loss that isn't finite is a gap."""
    assert [lines(each)[0] for each in plots.learning_curves([learned(**data)])] == drawn


def test_whole_training_has_running_means():
    """Thousands of updates are a line of 200 means and a band, and every point on test images, the last in figures."""
    images = 32 * np.arange(1, 5001)
    points = [(80_000.0, 0.7), (160_000.0, 0.8275)]
    noise = np.random.default_rng(0).random(5000)
    drawing = plots.learning_curve("quick", images, 2 + noise, noise, points)
    assert all(150 < each <= 200 for each in lines(drawing))  # Matplotlib leaves out what can't be seen
    assert len(drawing.svg) < 60_000
    assert "line: mean of 125 updates; band: the middle 80 %" in " ".join(texts(drawing))
    assert {"accuracy; ◆ on test images", "0.8275", "150k"} <= set(texts(drawing))


@pytest.mark.parametrize(("count", "width"), [(1, 7.0), (5, 7.0), (25, 3.6), (200, 2.0)], ids="points={}".format)
def test_many_measurements_are_small(count, width):
    """Markers of a few measurements are large, those of many so small that they stay apart."""
    points = [(32.0 * each, 0.8) for each in range(1, count + 1)]
    _, _, figure = plots._curve("quick", 32 * np.arange(1, 301), np.ones(300), np.ones(300), points)
    (marked,) = [line for line in figure.axes[1].lines if line.get_marker() == "D"]
    assert (len(marked.get_xdata()), marked.get_markersize()) == (count, width)


def test_running_mean():
    """The mean and quantiles of a window around each value, of what there is at the ends, and of what is finite."""
    chosen, means, low, high = plots._smoothed(np.array([1.0, 2.0, 6.0, math.inf, 8.0]), 3)
    np.testing.assert_array_equal(chosen, range(5))
    np.testing.assert_allclose(means, [1.5, 3.0, 4.0, 7.0, 8.0])
    np.testing.assert_allclose(low, [1.1, 1.2, 2.4, 6.2, 8.0])
    np.testing.assert_allclose(high, [1.9, 5.2, 5.6, 7.8, 8.0])
    assert np.isnan(plots._smoothed(np.array([math.nan]), 10)[1:]).all()


@pytest.mark.parametrize(
    ("images", "losses", "accuracies"),
    [([], [], []), ([1, 2], [1.0], []), ([1, 2], [1.0, 1.0], [0.5])],
    ids=["updates=0", "losses=fewer", "accuracies=fewer"],
)
def test_curves_need_a_loss_each(images, losses, accuracies):
    """Arrays of other lengths, and none at all, are refused with their lengths."""
    with pytest.raises(ValueError, match=f"{len(images)} updates can't have {len(losses)} losses and"):
        plots.learning_curve("quick", images, losses, accuracies)
