"""Train steps, round by round: times above clock and temperature, with what throttled them."""

import math
import re

import pytest

from tests.helpers.drawings import GPU, LINE, lines, places, steps, texts

pytestmark = pytest.mark.filterwarnings("error")  # such as that of a layout that found no room
UNRECORDED = "no clock or temperature recorded"


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
            *("cpu:0", {"seconds": (0.1, 0.2), "cpu_mhz": (2000, 1900)}, ["clock of the processors: GHz"]),
            id="recorded=cpu",
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


def test_clock_that_stays_is_named():
    """A clock or temperature that stays within 2 % is named below the rounds, and not drawn."""
    drawing = steps("cpu:0", seconds=(0.1, 0.2, 0.3), cpu_mhz=(2600, 2590, 2610), temperature=(50, 50, 60))
    assert "clock of the processors: 2.6 GHz throughout" in " ".join(texts(drawing))
    assert [each for each in texts(drawing) if each.endswith((": GHz", ": °C"))] == ["temperature: °C"]
    assert "clock of the processors: 2.6 GHz throughout" in drawing.description
    drawing = steps("cpu:0", seconds=(0.1,), cpu_mhz=(2600,))
    assert "round" in texts(drawing)
    assert UNRECORDED not in texts(drawing)


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
