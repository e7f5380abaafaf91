"""Cases under their device's calibrated roofs: by intensity, by rate, and told apart without colour."""

import re
from xml.etree import ElementTree as ET

import pytest

from alexnet_repro.verify.report.read import Case, Rates
from alexnet_repro.verify.report.roofline_plot import rooflines

SVG = "{http://www.w3.org/2000/svg}"
RATES = {"gpu:0": Rates({"float32": 5e13, "tf32": 4e14}, 3e12)}


def case(batch=128, precision="float32", title="forward", device="gpu:0", **fields):
    """Return a case of 1 TFLOP and 10 GB in 0.1 s: 100 FLOP a byte, 10 TFLOP/s."""
    name = f"{title}[device={device}-batch={batch}-precision={precision}]"
    return Case(name, device, precision, (0.1,), **{"flop": 1e12, "bytes": 1e10, **fields})


def texts(drawing):
    """Return the texts in a drawing, in their order."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


def test_roofs_and_batches_are_named():
    """Each precision has its peak beside its marker, memory its rate, and the smallest and largest batch a number."""
    (drawing,) = rooflines([case(b, flop=b * 1e10, bytes=1e9) for b in (1, 32, 512)], RATES)
    found = texts(drawing)
    named = ["forward, gpu:0: roofline", "float32, 50 TFLOP/s", "slope: memory, 3 TB/s"]
    assert found[-3:] == named
    assert found[-5:-3] == ["1", "512"]
    assert "32" not in found
    assert drawing.name == "roofline-gpu-0-forward"


def test_one_figure_a_device_and_kind():
    """Devices and kinds of case each have one, and all precisions of these share it."""
    rates = RATES | {"gpu:1": RATES["gpu:0"]}
    cases = [case(precision=each) for each in RATES["gpu:0"].matmul] + [case(device="gpu:1"), case(title="train_step")]
    names = ["roofline-gpu-0-forward", "roofline-gpu-1-forward", "roofline-gpu-0-train-step"]
    assert [each.name for each in rooflines(cases, rates)] == names


def test_a_case_lies_where_its_work_is():
    """Of two cases, ten times the operations for a byte lie a decade further right, ten times the rate a decade up."""
    cases = [case(1), case(2, flop=1e13)]  # intensity and rate ten times as large
    (drawing,) = rooflines(cases, {"gpu:0": Rates({"float32": 2e14}, 3e12)})
    path = re.search(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 0.7', drawing.svg)[1]
    (x0, y0), (x1, y1) = [tuple(map(float, each)) for each in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    roof = re.search(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #1b1f24; stroke-linecap', drawing.svg)[1]
    (a, b), (c, d) = [tuple(map(float, each)) for each in re.findall(r"[ML] ([\d.]+) ([\d.]+)", roof)]
    assert (y1 - y0) / (x1 - x0) == pytest.approx((d - b) / (c - a), rel=1e-3)  # the slope of memory is one decade each
    assert x1 > x0
    assert y1 < y0  # upwards


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        pytest.param({}, {}, id="rates=none"),
        pytest.param({"device": "gpu:1"}, RATES, id="rates=of another"),
        pytest.param({"precision": "mixed_float16"}, RATES, id="rates=of other precisions"),
        pytest.param({}, {"gpu:0": Rates({"float32": 0.0}, 3e12)}, id="rate=0"),
        pytest.param({}, {"gpu:0": Rates({"float32": float("inf")}, 3e12)}, id="rate=inf"),
        pytest.param({}, {"gpu:0": Rates({"float32": 5e13}, float("nan"))}, id="memory=nan"),
        pytest.param({"bytes": 0}, RATES, id="bytes=unknown"),
        pytest.param({"flop": 0}, RATES, id="flop=none"),
        pytest.param({"void": True}, RATES, id="case=void"),
        pytest.param({"precision": "other"}, {"gpu:0": Rates({"other": 1e12}, 3e12)}, id="precision=unknown"),
    ],
)
def test_nothing_is_drawn_of_what_isnt_known(fields, rates):
    """Without a calibration, work or speed there is no figure, and no error."""
    assert rooflines([case(**fields)], rates) == []


def test_precisions_differ_in_shape():
    """Markers are of different shapes, and roofs of different dashes."""
    (drawing,) = rooflines([case(precision=each) for each in RATES["gpu:0"].matmul], RATES)
    markers = set(re.findall(r'<use xlink:href="#([^"]+)"[^>]*style="fill: #0b5cad', drawing.svg))
    shapes = {re.search(rf'<path id="{each}" d="([^"]*)"', drawing.svg)[1] for each in markers}
    assert len(shapes) == 2
    assert drawing.svg.count("stroke-dasharray: 9,3") == 2
