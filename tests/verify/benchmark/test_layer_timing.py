"""Where most time is lost, of layers that were timed alone."""

import math

import pytest

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming, most_lost, most_lost_in_words, profiled


def timing(layer, seconds, roofline, direction="forward"):
    """Return a layer's timing."""
    return LayerTiming("cpu:0", "float32", 32, layer, direction, seconds, roofline)


LAYERS = [
    timing("resize", 0.001, 0.00001),  # at 1 % of its roofline, but of no weight
    timing("conv2d", 0.5, 0.4),
    timing("conv2d", 0.9, 0.6, "backward"),
    timing("dense", 0.2, 0.25),  # faster than its roofline
    timing("dense", 0.06, 0.02, "update"),
    timing("dense_1", math.inf, 1.0),
]


def test_what_loses_most_seconds_is_named():
    """Three by the seconds lost, not by the share; what is faster than its roofline loses none."""
    assert [(each.layer, each.direction) for each in most_lost(LAYERS)] == [
        ("conv2d", "backward"),
        ("conv2d", "forward"),
        ("dense", "update"),
    ]
    assert most_lost_in_words(LAYERS) == (
        "conv2d backward 300 ms (67 % of its roofline), conv2d forward 100 ms (80 % of its roofline), "
        "dense update 40 ms (33 % of its roofline)"
    )


def test_profile_has_no_bound():
    """A whole profile passes, however slow its layers are, and its finding says which lose most."""
    found = profiled("cpu:0", "float32", LAYERS, [])
    assert (found.check, found.status, found.bound, found.device) == ("profile", "PASS", None, "cpu:0")
    assert found.message.startswith("most time is lost in conv2d backward 300 ms")
    assert profiled("cpu:0", "float32", [LAYERS[3]], []).message == "every layer that was timed reaches its roofline"


def test_profile_names_what_it_couldnt_see():
    """Of a time that is lost in noise nothing is claimed."""
    found = profiled("cpu:0", "float32", [LAYERS[3], timing("dropout", 0.0, 0.1, "backward")], [])
    assert found.message == "every layer that was timed reaches its roofline; lost in noise: dropout backward"


def test_profile_that_isnt_whole():
    """Layers that there was no time for are named, with a profile that has more for them; it passes all the same."""
    found = profiled("gpu:7", "tf32", LAYERS[:2], ["dense", "dense_1"])
    assert found.status == "PASS"
    assert found.message.startswith("most time is lost in conv2d forward")
    assert found.message.endswith("; its time didn't suffice for dense, dense_1")
    assert found.fix == 'python -m alexnet_repro verify --profile --device=gpu:7 -k "test_profile and tf32"'
    assert profiled("gpu:7", "tf32", [], ["dense"]).status == "PASS"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0, -1.0])
def test_forged_times_lose_nothing(seconds):
    """A time that none can have is not among what loses most."""
    assert most_lost([timing("dense", seconds, 0.5)]) == []
