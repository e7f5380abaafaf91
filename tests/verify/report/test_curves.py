"""What changes as a run goes on: rounds with clock and temperature below them, and loss and accuracy while learning."""

import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import curves, panels, series
from alexnet_repro.verify.report.read import Case

SVG = "{http://www.w3.org/2000/svg}"
UNTOLD = "clock and temperature: not told"


def texts(drawing):
    """Return the texts in a drawing, in their order."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


def steps(device="gpu:0", rounds=(0.5, 0.5, 0.5, 0.5), **samples):
    """Return the drawing of a case with such samples."""
    case = Case(f"train_step[device={device}-batch=32]", device, "float32", rounds, samples=samples)
    (drawing,) = series.step_times([case])
    return drawing


def lines(drawing):
    """Return the numbers of points of the blue lines: the series that are drawn."""
    paths = re.findall(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 1.5', drawing.svg)
    return [len(re.findall(r"[ML] ", path)) for path in paths]


GPU = {"seconds": (0.1, 0.9, 1.7), "gpu_mhz": (1755, 1500, 1400), "temperature": (60, 70, None)}


@pytest.mark.parametrize(
    ("device", "samples", "labels"),
    [
        pytest.param("gpu:0", GPU, ["clock of the GPU: GHz", "temperature: °C"], id="told=clock and temperature"),
        pytest.param("gpu:0", {**GPU, "temperature": (None,) * 3}, ["clock of the GPU: GHz"], id="told=clock"),
        pytest.param("gpu:0", {"seconds": (0.1,), "cpu_mhz": (2000,)}, [], id="told=another's clock"),
        pytest.param("cpu:0", {"seconds": (0.1,), "cpu_mhz": (2000,)}, ["clock of the processors: GHz"], id="told=cpu"),
        pytest.param("cpu:0", {"seconds": (0.1,), "load": (1,)}, [], id="told=load"),
        pytest.param("cpu:0", {}, [], id="told=nothing"),
    ],
)
def test_clock_and_temperature_stand_below_the_rounds(device, samples, labels):
    """Each that was told has a panel over the same seconds; where none was, there is none, and it is said."""
    drawing = steps(device, **samples)
    found = texts(drawing)
    assert [each for each in found if each.endswith((": GHz", ": °C"))] == labels
    assert ("seconds" in found, "round" in found) == (bool(labels), not labels)
    assert (UNTOLD in found) == (not labels)
    assert ("neither clock nor temperature is told" in drawing.says) == (not labels)
    assert len(lines(drawing)) == 1 + len(labels)


def test_rounds_stand_where_they_began():
    """Rounds of 1, 2 and 3 seconds begin at 0, 1 and 3: the distances of the points are as 1 to 2."""
    drawing = steps(rounds=(1.0, 2.0, 3.0), **GPU)
    path = re.search(r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 1.5', drawing.svg)[1]
    first, second, third = (float(x) for x in re.findall(r"[ML] ([\d.]+)", path))
    assert (third - second) / (second - first) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        pytest.param((0, 0x20, 0x24), "× held down by its power limit and heat (software slowdown)", id="limits=heat"),
        pytest.param((0, 0x1, None), "", id="limits=idle"),
    ],
)
def test_what_holds_clocks_down_is_marked_and_said(limits, said):
    """Samples at which the driver names a limit are crossed, and the limits are named under the figure."""
    found = steps(**GPU, clock_limits=limits)
    assert " ".join(each for each in texts(found) if "held" in each or "slowdown" in each) == said
    assert (steps(**GPU).svg.count("<use") < found.svg.count("<use")) == bool(said)


def test_more_rounds_than_points_are_medians():
    """Of a thousand rounds, 200 medians are drawn, and it is said of how many rounds each."""
    found = texts(steps(rounds=tuple(1 + n / 1e5 for n in range(1000)), **GPU))
    assert "rounds, by medians of up to 5" in found
    assert "seconds" in found


def test_rounds_that_are_no_numbers_have_no_seconds():
    """A round that isn't finite can't be put on a clock: rounds are numbered, whatever was sampled."""
    assert "round" in texts(steps(rounds=(1.0, math.nan), **GPU))


def finding(**data):
    """Return what the check of learning found."""
    return Finding("learning", "PASS", "learned", device="gpu:1", precision="tf32", data=data)


def test_curve_of_a_check():
    """The losses and accuracies that the check kept are drawn, over images."""
    (drawing,) = curves.learning([finding(batch=20, losses=[2.0, 1.0, 0.5], accuracies=[0.1, 0.5, 1.0])])
    assert drawing.name == "learning-gpu-1-tf32"
    assert drawing.says == "Loss and accuracy of gpu:1, tf32 over 60 images, 3 updates"
    assert [each for each in texts(drawing) if each[0].isalpha()] == ["images seen", "gpu:1, tf32: loss", "accuracy"]
    assert lines(drawing) == [3, 3]


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        pytest.param({}, [], id="data=none"),
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
    assert [lines(each)[0] for each in curves.learning([finding(**data)])] == drawn


def test_whole_training_has_running_means():
    """Thousands of updates are a line of 200 means and a band, and every point on test images, the last in figures."""
    images = 32 * np.arange(1, 5001)
    points = [(80_000.0, 0.7), (160_000.0, 0.8275)]
    noise = np.random.default_rng(0).random(5000)
    drawing = curves.learning_curve("quick", images, 2 + noise, noise, points)
    assert all(150 < each <= 200 for each in lines(drawing))  # Matplotlib leaves out what can't be seen
    assert len(drawing.svg) < 60_000
    found = " ".join(texts(drawing))
    assert "line: mean of 125 updates; band: the middle 80 %" in " ".join(found.split())
    assert "accuracy; ◆ on test images" in found
    assert "0.8275" in found
    assert "150k" in found


@pytest.mark.parametrize(("count", "width"), [(1, 7.0), (5, 7.0), (25, 3.6), (200, 2.0)], ids="points={}".format)
def test_many_measurements_are_small(count, width, monkeypatch):
    """Markers of a few measurements are large, those of many so small that they stay apart."""
    kept = []
    monkeypatch.setattr(curves, "drawn", lambda figures: [kept.append(each[2]) for each in figures])
    points = [(32.0 * each, 0.8) for each in range(1, count + 1)]
    curves.learning_curve("quick", 32 * np.arange(1, 301), np.ones(300), np.ones(300), points)
    (marked,) = [line for line in kept[0].axes[1].lines if line.get_marker() == "D"]
    assert (len(marked.get_xdata()), marked.get_markersize()) == (count, width)


def test_running_mean():
    """The mean of a window around each, of what there is at the ends, and of what is finite."""
    values = np.array([1.0, 2.0, 6.0, math.nan, 8.0])
    np.testing.assert_allclose(panels._running_mean(values, 2), [1.5, 3.0, 4.0, 7.0, 8.0])
    assert np.isnan(panels._running_mean(np.array([math.nan]), 10)).all()


@pytest.mark.parametrize(
    ("images", "losses", "accuracies"),
    [([], [], []), ([1, 2], [1.0], []), ([1, 2], [1.0, 1.0], [0.5])],
    ids=["updates=0", "losses=fewer", "accuracies=fewer"],
)
def test_curves_need_a_loss_each(images, losses, accuracies):
    """Arrays of other lengths, and none at all, are refused with their lengths."""
    with pytest.raises(ValueError, match=f"{len(images)} updates can't have {len(losses)} losses and"):
        curves.learning_curve("quick", images, losses, accuracies)
