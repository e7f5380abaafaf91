"""Findings of several devices together, for each outcome."""

import pytest

from alexnet_repro.verify.benchmark import scaling
from alexnet_repro.verify.benchmark.scaling import Point
from alexnet_repro.verify.finding import Finding

QUIET = (1.0, 1.0, 1.0, 1.0, 1.0)
NOISY = (0.5, 0.7, 1.0, 1.4, 1.6)  # the middle half spreads over 70 % of the median
MODEL = "Fast GPU"


def rounds(median, shape=QUIET):
    """Return five rounds of this median."""
    return [median * each for each in shape]


def point(together, *, alone=(0.100, 0.100), kind="weak", shape=QUIET, one=0.0):
    """Return devices that take so long together and alone, of which an all-reduce takes 20 ms."""
    by_device = {f"gpu:{number}": rounds(each) for number, each in enumerate(alone)}
    return Point(kind, 64, rounds(together, shape), by_device, 0.020, "float32", one)


def test_weak_scaling():
    """Weak efficiency is the median device's time over that of all together: 100 ms over 125 are 0.8."""
    weak = point(0.125, alone=(0.100, 0.100, 0.100, 0.110))
    assert weak.efficiency == pytest.approx(0.8)
    assert weak.communicating == pytest.approx(1 - 0.110 / 0.125)  # the slowest is waited for


def test_strong_scaling():
    """Strong efficiency is one device's time with all images over that of all, and their number: 200 / (4 × 62.5)."""
    strong = point(0.0625, kind="strong", alone=(0.05,) * 4, one=0.200)
    assert strong.efficiency == pytest.approx(0.8)


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize(
    ("together", "shape", "status", "said"),
    [
        pytest.param(0.120, QUIET, "PASS", "of the time communicating", id="together=0.12"),
        pytest.param(0.126, QUIET, "PASS", "of the time communicating", id="together=0.126"),  # 5 % more
        pytest.param(0.128, QUIET, "INCONCLUSIVE", "explain no more than 120 ms", id="together=0.128"),
        pytest.param(0.239, QUIET, "INCONCLUSIVE", "explain no more than 120 ms", id="together=0.239"),
        pytest.param(0.241, QUIET, "FAIL", "explain no more than 120 ms", id="together=0.241"),  # twice the parts
        pytest.param(0.241, NOISY, "INCONCLUSIVE", "too noisy to judge", id="together=0.241-noisy"),
        pytest.param(0.120, NOISY, "PASS", "of the time communicating", id="together=0.12-noisy"),
    ],
)
def test_scaling_is_held_against_its_parts(kind, together, shape, status, said):
    """An update of 100 ms of computing and 20 of all-reduce may take 126; where it takes over 240, it fails."""
    found = scaling.scaling(point(together, kind=kind, shape=shape, one=0.2))
    assert (found.check, found.status, found.precision) == ("scaling", status, "float32")
    assert said in found.message
    assert found.number == pytest.approx(0.1 / together)
    assert found.bound == pytest.approx(0.1 / 0.12 * 0.95)
    assert bool(found.fix) is (status != "PASS")


def measured(seconds=0.010, fault=None):
    """Return an all-reduce among four devices: 1 MB in a tenth of the time of 100 MB."""
    small = {"bytes": 10**6, "tensors": 1, "devices": 4, "seconds": rounds(seconds / 10), "fault": None}
    return [small, {**small, "bytes": 10**8, "tensors": 16, "seconds": rounds(seconds), "fault": fault}]


@pytest.mark.parametrize(
    ("through_host", "status", "said"),
    [
        pytest.param(0.011, "PASS", "100 MB of gradients among 4 devices: 10 GB/s, 15 GB/s on the bus", id="host=11"),
        pytest.param(0.009, "FAIL", "copies through the host would be faster", id="host=9"),
        pytest.param(None, "INCONCLUSIVE", "nothing is known to hold it against", id="host=unknown"),
    ],
)
def test_all_reduce_is_held_against_the_way_through_the_host(through_host, status, said):
    """100 MB among four in 10 ms are 10 GB/s, 2 × 3/4 of it on the bus; slower than through the host fails."""
    found = scaling.all_reduce(measured(), through_host)
    assert (found.check, found.status, found.number) == ("all-reduce", status, pytest.approx(1e10))
    assert said in found.message
    assert found.bound == (pytest.approx(1e8 / through_host) if through_host else None)
    assert found.data["measured"] == [[10**6, pytest.approx(0.001)], [10**8, pytest.approx(0.010)]]


def test_all_reduce_that_sums_wrongly_is_invalid():
    """However fast it came."""
    found = scaling.all_reduce(measured(fault="the sum of 1 to 4 came out as 9.0"), 1.0)
    assert (found.status, found.message) == ("FAIL", "invalid: the sum of 1 to 4 came out as 9.0")


STRAGGLERS = [
    pytest.param((1.0, 1.0), "PASS", "", [], id="alone=1.0 1.0"),
    pytest.param((1.0, 1.04), "PASS", "", [], id="alone=1.0 1.04"),
    pytest.param((1.0, 1.06), "FAIL", "gpu:1", ["gpu:1"], id="alone=1.0 1.06"),  # two: against the faster
    pytest.param((1.06, 1.0), "FAIL", "gpu:0", ["gpu:0"], id="alone=1.06 1.0"),
    pytest.param((1.0, 1.0, 1.0, 1.2), "FAIL", "gpu:3", ["gpu:3"], id="alone=1.0 1.0 1.0 1.2"),
    pytest.param((0.8, 1.0, 1.0, 1.0), "PASS", "", [], id="alone=0.8 1.0 1.0 1.0"),  # a fast one is no fault
    pytest.param((1.0, 1.3, 1.2, 1.0), "FAIL", "gpu:1", ["gpu:1", "gpu:2"], id="alone=1.0 1.3 1.2 1.0"),
]


@pytest.mark.parametrize(("alone", "status", "device", "slow"), STRAGGLERS)
def test_stragglers_are_named(alone, status, device, slow):
    """A device over 5 % behind the median fails by name, the slowest first."""
    by_device = {f"gpu:{number}": rounds(each) for number, each in enumerate(alone)}
    (found,) = scaling.stragglers(by_device, 64, dict.fromkeys(by_device, MODEL), "float32")
    assert (found.check, found.status, found.device, found.data["slow"]) == ("stragglers", status, device, slow)
    assert f"× {MODEL}" in found.message
    assert all(each in found.message for each in slow)
    assert found.number == pytest.approx(max(alone) / 1.0 - 1)
    assert bool(found.fix) is (status == "FAIL")


def test_noise_accuses_no_straggler():
    """Where rounds spread too widely, the slowest is named and in doubt."""
    alone = {"gpu:0": rounds(1.0), "gpu:1": rounds(1.2, NOISY)}
    (found,) = scaling.stragglers(alone, 64, {})
    assert (found.status, found.device) == ("INCONCLUSIVE", "gpu:1")
    assert "too noisy to judge" in found.message


def test_models_are_compared_with_their_own():
    """A slower model of GPU is no straggler, and one of its kind has none to be held against."""
    alone = {"gpu:0": rounds(1.0), "gpu:1": rounds(1.0), "gpu:2": rounds(2.0)}
    (found,) = scaling.stragglers(alone, 64, {"gpu:0": MODEL, "gpu:1": MODEL, "gpu:2": "Slow GPU"})
    assert (found.status, found.data["seconds"]) == ("PASS", {"gpu:0": 1.0, "gpu:1": 1.0})


@pytest.mark.parametrize("status", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_parts_of_a_cpu_tell_nothing_of_speed(status):
    """Whatever was measured there is in doubt, by design, and says so."""
    found = scaling.by_design(Finding("scaling", status, "efficiency 50 %", number=0.5))
    assert (found.status, found.number) == ("INCONCLUSIVE", 0.5)
    assert found.message == "efficiency 50 %; on parts of one CPU, which share its cores, it means nothing"


def test_parts_of_a_cpu_can_be_wrong():
    """But what was computed wrongly there fails all the same."""
    assert scaling.by_design(scaling.void("scaling", "the loss is nan")).status == "FAIL"
