"""The model of an update's time on many devices, against values that were worked out by hand."""

import pytest

from alexnet_repro.verify.benchmark.scaling import Link
from alexnet_repro.verify.finding import Finding
from benchmarks.tools import scaling_model as script
from benchmarks.tools.scaling_model import Figures, efficiency, update_time
from tests.helpers.paths import ROOT

INSIDE, OUTSIDE = Link(bandwidth=100.0, latency=0.5), Link(bandwidth=10.0, latency=2.0)
FIGURES = Figures(0.25, 1.0, 0.01, INSIDE, OUTSIDE, devices_per_machine=4, gradient_bytes=400)


def test_ring_of_one_machine():
    """Within a machine, hops are those inside it."""
    assert FIGURES.ring(4) == INSIDE


def test_ring_through_machines():
    """Of two machines of four, one of seven hops is between them: its bandwidth, and the latencies' mean."""
    link = FIGURES.ring(8)
    assert link.bandwidth == 10.0
    assert link.latency == pytest.approx((6 * 0.5 + 2.0) / 7)
    assert FIGURES.ring(9).latency == pytest.approx((6 * 0.5 + 2 * 2.0) / 8)


def test_update_of_one_device():
    """One device computes and draws, and waits for none."""
    alone = update_time(1, 8, FIGURES)
    assert (alone.compute, alone.bandwidth, alone.latency) == (3.0, 0.0, 0.0)
    assert alone.input == pytest.approx(0.08)


def test_update_of_two_machines():
    """The parts of eight devices' update, and their sum, worked out by hand."""
    update = update_time(8, 8, FIGURES)
    assert update.compute == 3.0
    assert update.bandwidth == pytest.approx(2 * 7 / 8 * 400 / 10)  # 70
    assert update.latency == pytest.approx(2 * (6 * 0.5 + 2.0))  # 10
    assert update.input == pytest.approx(0.64)
    assert sum(update) == pytest.approx(83.64)


def test_efficiencies():
    """Weak: 3.08 s alone over 83.64. Strong, 64 images in all: an eighth of 17.64 s over 83.64."""
    assert efficiency(8, 8, FIGURES) == pytest.approx(3.08 / 83.64)
    assert efficiency(8, 8, FIGURES, strong=True) == pytest.approx(17.64 / 8 / 83.64)
    assert efficiency(1, 8, FIGURES) == efficiency(1, 8, FIGURES, strong=True) == 1.0


def test_nominal_figures():
    """An H100 at half of 989.4 TFLOP/s has 88,956 images/s; eight ports carry 400 GB/s, one 50."""
    assert 1 / script.nominal().image == pytest.approx(88_956, rel=1e-4)
    assert script.nominal().outside.bandwidth == 50e9
    assert script.nominal(8).outside.bandwidth == 400e9


@pytest.mark.parametrize(
    ("devices", "images", "share", "broken"),
    [
        pytest.param(8, 8, 0.95, [], id="efficiency=0.95"),
        pytest.param(8, 8, 0.5, ["bandwidth"], id="efficiency=0.5"),
        pytest.param(1024, 59, 0.95, ["data"], id="images=60416"),  # more than 60,000
        pytest.param(1024, 59, 0.5, ["data", "latency"], id="images=60416-efficiency=0.5"),
    ],
)
def test_what_breaks(devices, images, share, broken):
    """What costs most, where efficiency is below 0.9; and the data set, where an update takes more than it has."""
    assert script.breaks(devices, images, update_time(devices, images, FIGURES), share) == broken


def test_measured_figures_take_the_place_of_nominal_ones():
    """A run's all-reduces give the link inside a machine, its slowest device the images/s."""
    sizes = [[size, size / 2e9 + 2 * 5e-6] for size in (4096, 10**6, 10**8)]
    found = [
        Finding("stragglers", "PASS", "", data={"images": 100, "seconds": {"gpu:0": 0.1, "gpu:1": 0.2}}),
        Finding("all-reduce", "PASS", "", data={"devices": 2, "measured": sizes}),
    ]
    figures = script.measured(script.nominal(), found)
    assert figures.image == pytest.approx(0.002)
    assert figures.inside.bandwidth == pytest.approx(2e9, rel=1e-6)
    assert figures.outside == script.nominal().outside
    with pytest.raises(ValueError, match="no all-reduce was measured"):
        script.measured(script.nominal(), [])


@pytest.mark.parametrize("ports", [1, 8])
def test_documented_table_is_the_scripts(ports):
    """The page shows what the script prints."""
    page = (ROOT / "docs/growing.md").read_text()
    assert "\n".join(script.table(script.nominal(ports))) in page
