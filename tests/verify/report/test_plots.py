"""Plots of timings: throughput, rooflines and references, one for each thing to see, readable without colour."""

import math
import re
from dataclasses import replace

import pytest

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import plots
from tests.helpers.drawings import PRECISIONS, RATES, case, places, speed, texts, work

pytestmark = pytest.mark.filterwarnings("error")  # such as that of a layout that found no room


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


def test_reference_is_drawn_with_its_bound():
    """A figure per device: each case with its ratio and a sign where it hasn't passed, its interval, and its bound."""
    found = [speed(), speed("FAIL"), speed("INCONCLUSIVE"), speed(device="gpu:1"), Finding("golden", "PASS", "bits")]
    first, second = plots.against_reference(found)
    assert (first.name, second.name) == ("reference-gpu-0", "reference-gpu-1")
    assert [text for text in texts(first) if text.startswith("1.100")] == ["1.100 ×", "1.100 × ✗", "1.100 × ?"]
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
    """Each precision has its peak beside its marker, memory its rate, and each batch its number."""
    (drawing,) = plots.rooflines([work(b, flop=b * 1e10, bytes=1e9) for b in (1, 32, 256)], [RATES])
    found = texts(drawing)
    assert {"forward, gpu:0: roofline", "FLOP per byte", "FLOP/s", "float32, 50 TFLOP/s", "memory, 3 TB/s"} <= set(
        found
    )
    assert [each for each in found if each in ("1", "32", "256")] == ["1", "32", "256"]
    assert not any("above" in each for each in found)


def test_cases_above_their_roof_are_named():
    """A case that beats the rates of its roof, of memory or of its precision, is named below the figure."""
    cases = [work(1, flop=5e12, bytes=10**12), work(32, flop=1e13, bytes=10**12), work(512, flop=6e12, bytes=10**8)]
    (drawing,) = plots.rooflines(cases, [RATES])
    assert "above its roof: float32, batch\N{NO-BREAK SPACE}1, 32, 512" in " ".join(texts(drawing))


def test_batches_cover_nothing():
    """Four precisions at one place have their numbers on its four sides."""
    cases = [work(precision=each) for each in PRECISIONS]
    (drawing,) = plots.rooflines(cases[:4], [Calibration("gpu:0", dict.fromkeys(PRECISIONS, 5e13), 3e12)])
    assert texts(drawing).count("128") == 4


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
        pytest.param({}, {"memory": 5e-324}, id="memory=tiny"),
        pytest.param({}, {"matmul": {"float32": 1e308}}, id="rate=huge"),
        pytest.param({"flop": 10**300}, {}, id="flop=huge"),
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
