"""The model of an update's time on many devices, against values that were worked out by hand."""

import math

import pytest

from alexnet_repro.verify.benchmark import growth
from alexnet_repro.verify.benchmark.growth import Figures, Link, Network
from alexnet_repro.verify.finding import Finding
from benchmarks.tools import scaling_model as script
from tests.helpers.paths import ROOT

INSIDE, OUTSIDE = Link(bandwidth=100.0, latency=0.5), Link(bandwidth=10.0, latency=2.0)
NETWORK = Network(INSIDE, OUTSIDE, devices_per_machine=4)
FIGURES = Figures(image=0.25, update=1.0, draw=0.01, network=NETWORK, gradient_bytes=400)


@pytest.mark.parametrize(
    ("devices", "seconds"),
    [
        pytest.param(1, 0.0, id="devices=1"),
        pytest.param(2, 4.0 + 1.0, id="devices=2"),  # 2 × 1/2 × 400/100, and 2 hops of 0.5
        pytest.param(4, 6.0 + 3.0, id="devices=4"),  # 2 × 3/4 × 400/100, and 6 hops of 0.5
    ],
)
def test_ring(devices, seconds):
    """A ring takes 2(n-1)/n of the bytes over the bandwidth, and 2(n-1) latencies; nothing with one device."""
    assert growth.ring_seconds(devices, 400, INSIDE) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("devices", "bus"),
    [
        pytest.param(2, 50.0, id="devices=2"),
        pytest.param(4, 75.0, id="devices=4"),
        pytest.param(8, 87.5, id="devices=8"),
    ],
)
def test_bandwidths(devices, bus):
    """Of 100 bytes in 2 s, algorithm bandwidth is 50 a second; the bus's is 2(n-1)/n of it, as nccl-tests has it."""
    assert growth.algorithm_bandwidth(100, 2.0) == 50.0
    assert growth.bus_bandwidth(devices, 100, 2.0) == pytest.approx(bus)


def test_gradients_are_the_documented_parameters():
    """187 MB: four bytes for each of 46,764,746 parameters."""
    assert growth.GRADIENT_BYTES == 187_058_984


def test_ring_of_one_machine():
    """Within a machine, hops are those inside it."""
    assert (NETWORK.machines(4), NETWORK.ring(4)) == (1, INSIDE)


def test_ring_through_machines():
    """Through two machines of four, one of seven hops is between them: its bandwidth, and the latencies' mean."""
    assert (NETWORK.machines(8), NETWORK.machines(9)) == (2, 3)
    link = NETWORK.ring(8)
    assert link.bandwidth == 10.0
    assert link.latency == pytest.approx((6 * 0.5 + 2.0) / 7)


def test_update_of_one_device():
    """One device computes and draws, and waits for none."""
    alone = growth.update(1, 8, FIGURES)
    assert (alone.compute, alone.bandwidth, alone.latency) == (3.0, 0.0, 0.0)
    assert alone.input == pytest.approx(0.08)


def test_update_of_two_machines():
    """The parts of eight devices' update, their sum, the rate and what costs most, worked out by hand."""
    update = growth.update(8, 8, FIGURES)
    assert update.compute == 3.0
    assert update.bandwidth == pytest.approx(2 * 7 / 8 * 400 / 10)  # 70
    assert update.latency == pytest.approx(2 * (6 * 0.5 + 2.0))  # 10
    assert update.input == pytest.approx(0.64)
    assert update.seconds == pytest.approx(83.64)
    assert update.rate == pytest.approx(64 / 83.64)
    assert update.communicating == pytest.approx(80 / 83.64)
    assert update.costliest == "bandwidth"
    assert update.updates_an_epoch == pytest.approx(937.5)


def test_efficiencies():
    """Weak: 3.08 s alone over 83.64. Strong, 64 images in all: an eighth of 17.64 s over 83.64."""
    assert growth.weak_efficiency(8, 8, FIGURES) == pytest.approx(3.08 / 83.64)
    assert growth.strong_efficiency(8, 64, FIGURES) == pytest.approx(17.64 / 8 / 83.64)
    assert growth.weak_efficiency(1, 8, FIGURES) == growth.strong_efficiency(1, 8, FIGURES) == 1.0


def test_fit_finds_what_made_the_times():
    """From all-reduces of 3 GB/s and 20 µs a hop, of four sizes among two and four devices, both come back."""
    times = [
        (n, size, 2 * (n - 1) / n * size / 3e9 + 2 * (n - 1) * 20e-6) for n in (2, 4) for size in (4096, 10**6, 10**8)
    ]
    found = growth.fit(times)
    assert found.bandwidth == pytest.approx(3e9, rel=1e-6)
    assert found.latency == pytest.approx(20e-6, rel=1e-6)


def test_fit_has_nothing_below_zero():
    """Times that shrink with size have no bandwidth to find: it is infinite, not negative."""
    found = growth.fit([(2, 1000, 2.0), (2, 10**6, 1.0)])
    assert found.bandwidth == math.inf
    assert found.latency > 0


def test_fit_by_relative_errors():
    """Two large all-reduces 10 % off either way leave the small ones' latency; (1/1.1 + 1/0.9) / (1/1.1² + 1/0.9²)."""
    found = growth.fit([(2, 4, 0.001), (2, 8, 0.001), (2, 10**9, 1.1), (2, 10**9, 0.9)])
    assert found.latency == pytest.approx(0.0005, rel=0.01)
    assert found.bandwidth == pytest.approx(1e9 / 0.98020, rel=2e-3)


def test_nominal_figures():
    """An H100 at half of 989.4 TFLOP/s has 88,956 images/s; eight ports carry 400 GB/s, one 50."""
    assert 1 / script.nominal().image == pytest.approx(88_956, rel=1e-4)
    assert script.nominal().network.outside.bandwidth == 50e9
    assert script.nominal(ports=8).network.outside.bandwidth == 400e9


@pytest.mark.parametrize(
    ("devices", "images", "efficiency", "broken"),
    [
        pytest.param(8, 8, 0.95, [], id="efficiency=0.95"),
        pytest.param(8, 8, 0.5, ["bandwidth"], id="efficiency=0.5"),
        pytest.param(1024, 59, 0.95, ["data"], id="images=60416"),  # more than 60,000
        pytest.param(1024, 59, 0.5, ["data", "latency"], id="images=60416-efficiency=0.5"),
    ],
)
def test_what_breaks(devices, images, efficiency, broken):
    """What costs most, where efficiency is below 0.9; and the data set, where an update takes more than it has."""
    assert script.breaks(growth.update(devices, images, FIGURES), efficiency) == broken
    assert set(broken) <= script.KNOBS.keys()


def test_measured_figures_take_the_place_of_nominal_ones():
    """A run's all-reduces give the link inside a machine, its slowest device the images/s."""
    sizes = [[size, size / 2e9 + 2 * 5e-6] for size in (4096, 10**6, 10**8)]
    found = [
        Finding("stragglers", "PASS", "", data={"images": 100, "seconds": {"gpu:0": 0.1, "gpu:1": 0.2}}),
        Finding("all-reduce", "PASS", "", data={"devices": 2, "measured": sizes}),
    ]
    figures = script.measured(script.nominal(), found)
    assert figures.image == pytest.approx(0.002)
    assert figures.network.inside.bandwidth == pytest.approx(2e9, rel=1e-6)
    assert figures.network.outside == script.nominal().network.outside
    with pytest.raises(ValueError, match="no all-reduce was measured"):
        script.measured(script.nominal(), [])


@pytest.mark.parametrize("ports", [1, 8])
def test_documented_table_is_the_scripts(ports):
    """The page shows what the script prints."""
    page = (ROOT / "docs/growing.md").read_text()
    assert "\n".join(script.table(script.nominal(ports=ports), 512, 4096)) in page
