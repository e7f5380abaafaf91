"""Learning curves: of the check that learns one batch, and of whole trainings."""

import math

import numpy as np
import pytest

from alexnet_repro.verify.report import curves
from tests.helpers.drawings import learned, lines, texts

pytestmark = pytest.mark.filterwarnings("error")  # such as that of a layout that found no room


def test_curve_of_a_check():
    """The losses that the check kept are drawn over images, and the accuracy that it passes by is named."""
    (drawing,) = curves.learning_curves([learned(batch=20, losses=[2.0, 1.0, 0.5], accuracies=[0.1, 0.5, 0.1])])
    assert drawing.name == "learning-gpu-1-tf32"
    notes = "accuracy after it: 0.75; chance is below 0.40"
    assert drawing.description == f"Loss of gpu:1, tf32 over 60 images, 3 updates; {notes}"
    words = {each for each in texts(drawing) if each[0].isalpha()}
    assert words == {"images seen", "gpu:1, tf32: loss", "accuracy after it: 0.75", "chance is below 0.40"}
    assert lines(drawing) == [3]


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
    assert [lines(each)[0] for each in curves.learning_curves([learned(**data)])] == drawn


def test_whole_training_has_running_means():
    """Thousands of updates are a line of 200 means and a band, and every point on test images, the last in figures."""
    images = 32 * np.arange(1, 5001)
    points = [(80_000.0, 0.7), (160_000.0, 0.8275)]
    noise = np.random.default_rng(0).random(5000)
    drawing = curves.learning_curve("quick", images, 2 + noise, noise, points)
    assert all(150 < each <= 200 for each in lines(drawing))  # Matplotlib leaves out what can't be seen
    assert len(drawing.svg) < 60_000
    assert "line: mean of 125 updates; band: the middle 80 %" in " ".join(texts(drawing))
    assert {"accuracy; ◆ on test images", "0.8275", "150k"} <= set(texts(drawing))


@pytest.mark.parametrize(("count", "width"), [(1, 7.0), (5, 7.0), (25, 3.6), (200, 2.0)], ids="points={}".format)
def test_many_measurements_are_small(count, width):
    """Markers of a few measurements are large, those of many so small that they stay apart."""
    points = [(32.0 * each, 0.8) for each in range(1, count + 1)]
    _, _, figure = curves._curve("quick", 32 * np.arange(1, 301), np.ones(300), np.ones(300), points=points)
    (marked,) = [line for line in figure.axes[1].lines if line.get_marker() == "D"]
    assert (len(marked.get_xdata()), marked.get_markersize()) == (count, width)


def test_running_mean():
    """The mean and quantiles of a window around each value, of what there is at the ends, and of what is finite."""
    chosen, means, low, high = curves._smoothed(np.array([1.0, 2.0, 6.0, math.inf, 8.0]), 3)
    np.testing.assert_array_equal(chosen, range(5))
    np.testing.assert_allclose(means, [1.5, 3.0, 4.0, 7.0, 8.0])
    np.testing.assert_allclose(low, [1.1, 1.2, 2.4, 6.2, 8.0])
    np.testing.assert_allclose(high, [1.9, 5.2, 5.6, 7.8, 8.0])
    assert np.isnan(curves._smoothed(np.array([math.nan]), 10)[1:]).all()


@pytest.mark.parametrize(
    ("images", "losses", "accuracies"),
    [([], [], []), ([1, 2], [1.0], []), ([1, 2], [1.0, 1.0], [0.5])],
    ids=["updates=0", "losses=fewer", "accuracies=fewer"],
)
def test_curves_need_a_loss_each(images, losses, accuracies):
    """Arrays of other lengths, and none at all, are refused with their lengths."""
    with pytest.raises(ValueError, match=f"{len(images)} updates can't have {len(losses)} losses and"):
        curves.learning_curve("quick", images, losses, accuracies)
