"""Findings of several devices together, for each outcome."""

import math

import pytest

from alexnet_repro.verify.benchmark import scaling
from alexnet_repro.verify.benchmark.interconnect import Interconnect
from alexnet_repro.verify.benchmark.scaling import Link, Point, fit_link, judge_all_reduce, judge_scaling, ring_seconds
from alexnet_repro.verify.finding import Finding

QUIET = (1.0, 1.0, 1.0, 1.0, 1.0)
NOISY = (0.5, 0.7, 1.0, 1.4, 1.6)  # the middle half spreads over 70 % of the median
MODEL = "Fast GPU"


def rounds(median, shape=QUIET):
    """Return five rounds of this median."""
    return [median * each for each in shape]


def point(together, *, alone=(0.100, 0.100), kind="weak", shape=QUIET, one=0.0):
    """Return devices that take `together` and `alone` seconds, of which an all-reduce takes 20 ms."""
    by_device = {f"gpu:{number}": rounds(each) for number, each in enumerate(alone)}
    return Point(kind, 64, rounds(together, shape), by_device, 0.020, "float32", one)


def test_weak_scaling():
    """Weak efficiency is the median device's time over that of all together: 100 ms over 125 are 0.8."""
    weak = judge_scaling(point(0.125, alone=(0.100, 0.100, 0.100, 0.110)))
    assert weak.number == pytest.approx(0.8)
    assert weak.data["communicating"] == pytest.approx(1 - 0.110 / 0.125)  # the slowest is waited for


def test_strong_scaling():
    """Strong efficiency is one device's time with all images over that of all, and their number: 200 / (4 × 62.5)."""
    strong = judge_scaling(point(0.0625, kind="strong", alone=(0.05,) * 4, one=0.200))
    assert strong.number == pytest.approx(0.8)


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize(
    ("together", "shape", "status", "message"),
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
def test_scaling_is_compared_with_its_parts(kind, together, shape, status, message):
    """An update of 100 ms of computing and 20 of all-reduce may take 126; where it takes over 240, it fails."""
    found = judge_scaling(point(together, kind=kind, shape=shape, one=0.2))
    assert (found.check, found.status, found.precision) == ("scaling", status, "float32")
    assert message in found.message
    assert found.number == pytest.approx(0.1 / together)
    assert found.bound == pytest.approx(0.1 / 0.12 * 0.95)
    assert bool(found.fix) is (status != "PASS")


ACROSS = [
    pytest.param(0.011, "PASS", "15 GB/s on the bus", id="simple=11"),
    pytest.param(0.009, "FAIL", "once around a ring at the link's speed, and back would be faster", id="simple=9"),
    pytest.param(None, "PASS", "no bound: name the link's speed with --link-gbps", id="simple=unknown"),
]


@pytest.mark.parametrize(("simple", "status", "message"), ACROSS)
def test_all_reduce_across_machines(simple, status, message):
    """It is compared with the link's speed where that was named; else it passes, and says how to name it."""
    found = judge_all_reduce(measured(), simple, network=True)
    assert (found.status, message in found.message) == (status, True)
    assert bool(found.fix) is (simple != 0.011)


def measured(seconds=0.010, fault=None):
    """Return an all-reduce among four devices: 1 MB in a tenth of the time of 100 MB."""
    small = {"bytes": 10**6, "tensors": 1, "devices": 4, "seconds": rounds(seconds / 10), "fault": None}
    return [small, {**small, "bytes": 10**8, "tensors": 16, "seconds": rounds(seconds), "fault": fault}]


@pytest.mark.parametrize(
    ("through_host", "status", "message"),
    [
        pytest.param(0.011, "PASS", "100 MB of gradients among 4 devices: 10 GB/s, 15 GB/s on the bus", id="host=11"),
        pytest.param(0.009, "FAIL", "copies through the host would be faster", id="host=9"),
        pytest.param(None, "INCONCLUSIVE", "no bound is known between CPUs", id="host=unknown"),
    ],
)
def test_all_reduce_is_compared_with_the_way_through_the_host(through_host, status, message):
    """100 MB among four in 10 ms are 10 GB/s, 2 × 3/4 of it on the bus; slower than through the host fails."""
    found = judge_all_reduce(measured(), through_host)
    assert (found.check, found.status, found.number) == ("all-reduce", status, pytest.approx(1e10))
    assert message in found.message
    assert found.bound == (pytest.approx(1e8 / through_host) if through_host else None)
    assert found.data["measured"] == [[10**6, pytest.approx(0.001)], [10**8, pytest.approx(0.010)]]


H100S = Interconnect("18 NVLinks of each", 370.8e9, 0.25, 0.1)
CARDS = Interconnect("PCIe 4.0 ×16", 6e9, 0.5, 0.0)
WAYS = [
    # 187 MB among eight: 2 × 7/8 of them in 109 ms are 3 GB/s on the bus, as sockets have it.
    pytest.param(H100S, 0.109, "FAIL", "18 NVLinks of each carry", id="way=NVLink-bus=3"),
    pytest.param(H100S, 0.0088, "INCONCLUSIVE", "at least 25% should be reached", id="way=NVLink-bus=37"),
    pytest.param(H100S, 0.0089, "FAIL", "at least 25% should be reached", id="way=NVLink-bus=36.8"),
    pytest.param(H100S, 0.0034, "PASS", "96.3 GB/s on the bus", id="way=NVLink-bus=96"),
    pytest.param(CARDS, 0.109, "PASS", "3 GB/s on the bus", id="way=PCIe-bus=3"),
    pytest.param(CARDS, 0.111, "INCONCLUSIVE", "what PCIe 4.0 ×16 carry", id="way=PCIe-bus=2.9"),
    pytest.param(CARDS, 0.25, "FAIL", "what PCIe 4.0 ×16 carry", id="way=PCIe-slower than through the host"),
    pytest.param(None, 0.109, "PASS", "3 GB/s on the bus", id="way=unknown-bus=3"),
]


@pytest.mark.parametrize(("way", "seconds", "status", "message"), WAYS)
def test_all_reduce_is_compared_with_the_way_between_gpus(way, seconds, status, message):
    """Though faster than through the host, which takes 0.2 s here, what isn't as fast as the links are is noticed."""
    size = 187_058_984
    rows = [{**each, "devices": 8} for each in measured(seconds)]
    rows[0] |= {"bytes": size // 187, "seconds": rounds(seconds / 187)}  # no latency: what is fitted is on the bus
    rows[1] |= {"bytes": size}
    found = judge_all_reduce(rows, 0.2, way)
    assert (found.status, message in found.message) == (status, True)
    assert bool(found.fix) is (status != "PASS")
    assert found.data.get("way") == (way and way._asdict())
    assert ("as NCCL reckons" in found.evidence) is (way is not None)


def test_launching_is_no_fault_of_the_links():
    """An all-reduce that takes 5 ms to launch, and 1 ms per 211 MB on the bus, passes by what was fitted."""
    sizes = (4096, 1 << 16, 1 << 20, 1 << 24, 187_058_984)
    rows = [
        {**measured()[0], "devices": 8, "bytes": size, "seconds": rounds(0.005 + 1.75 * size / 211e9)} for size in sizes
    ]
    found = judge_all_reduce(rows, 0.2, H100S)
    assert found.status == "PASS"
    assert "50.0 GB/s on the bus" in found.message.replace("50 GB/s", "50.0 GB/s")


def test_all_reduce_that_sums_wrongly_is_invalid():
    """However fast it came."""
    found = judge_all_reduce(measured(fault="the sum of 1 to 4 came out as 9.0"), 1.0)
    assert (found.status, found.message) == ("FAIL", "invalid: the sum of 1 to 4 came out as 9.0")


STRAGGLERS = [
    pytest.param((1.0, 1.0), "PASS", "", [], id="alone=1.0 1.0"),
    pytest.param((1.0, 1.04), "PASS", "", [], id="alone=1.0 1.04"),
    pytest.param((1.0, 1.06), "INCONCLUSIVE", "gpu:1", ["gpu:1"], id="alone=1.0 1.06"),  # two: against the faster
    pytest.param((1.06, 1.0), "INCONCLUSIVE", "gpu:0", ["gpu:0"], id="alone=1.06 1.0"),
    pytest.param((1.0, 1.0, 1.0, 1.21), "INCONCLUSIVE", "gpu:3", ["gpu:3"], id="alone=1.0 1.0 1.0 1.21"),
    pytest.param((1.0, 1.0, 1.0, 1.23), "FAIL", "gpu:3", ["gpu:3"], id="alone=1.0 1.0 1.0 1.23"),
    pytest.param((0.8, 1.0, 1.0, 1.0), "PASS", "", [], id="alone=0.8 1.0 1.0 1.0"),  # a fast one is no fault
    pytest.param((1.0, 1.3, 1.2, 1.0), "FAIL", "gpu:1", ["gpu:1", "gpu:2"], id="alone=1.0 1.3 1.2 1.0"),
]


@pytest.mark.parametrize(("alone", "status", "device", "slow"), STRAGGLERS)
def test_stragglers_are_named(alone, status, device, slow):
    """A device over 5 % behind the median is named, the slowest first; over 22 %, which sound ones aren't, it fails."""
    by_device = {f"gpu:{number}": rounds(each) for number, each in enumerate(alone)}
    (found,) = scaling.find_stragglers(by_device, 64, dict.fromkeys(by_device, MODEL), "float32")
    assert (found.check, found.status, found.device, found.data["slow"]) == ("stragglers", status, device, slow)
    assert f"× {MODEL}" in found.message
    assert all(each in found.message for each in slow)
    assert found.number == pytest.approx(max(alone) / 1.0 - 1)
    assert bool(found.fix) is (status != "PASS")


def test_noise_accuses_no_straggler():
    """Where rounds spread too widely, the slowest is named, inconclusively."""
    alone = {"gpu:0": rounds(1.0), "gpu:1": rounds(1.3, NOISY)}
    (found,) = scaling.find_stragglers(alone, 64, {})
    assert (found.status, found.device) == ("INCONCLUSIVE", "gpu:1")
    assert "too noisy to judge" in found.message


def test_models_are_compared_with_their_own():
    """A slower model of GPU is no straggler, and a single one of its model has none to be compared with."""
    alone = {"gpu:0": rounds(1.0), "gpu:1": rounds(1.0), "gpu:2": rounds(2.0)}
    (found,) = scaling.find_stragglers(alone, 64, {"gpu:0": MODEL, "gpu:1": MODEL, "gpu:2": "Slow GPU"})
    assert (found.status, found.data["seconds"]) == ("PASS", {"gpu:0": 1.0, "gpu:1": 1.0})


@pytest.mark.parametrize("status", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_parts_of_a_cpu_tell_nothing_of_speed(status):
    """Whatever was measured there is inconclusive, and says why."""
    found = scaling.inconclusive_speed(Finding("scaling", status, "efficiency 50 %", number=0.5))
    assert (found.status, found.number) == ("INCONCLUSIVE", 0.5)
    assert found.message == "efficiency 50 %; on parts of one CPU, which share its cores, speed means nothing"


def test_parts_of_a_cpu_can_be_wrong():
    """But what was computed wrongly there fails all the same."""
    assert scaling.inconclusive_speed(scaling.invalid_result("scaling", "the loss is nan")).status == "FAIL"


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
    assert ring_seconds(devices, 400, Link(bandwidth=100.0, latency=0.5)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("devices", "bus"),
    [
        pytest.param(2, "10 GB/s on the bus", id="devices=2"),
        pytest.param(4, "15 GB/s on the bus", id="devices=4"),
        pytest.param(8, "17.5 GB/s on the bus", id="devices=8"),
    ],
)
def test_bandwidths(devices, bus):
    """100 MB in 10 ms are 10 GB/s; on the bus 2(n-1)/n of it, as nccl-tests has it."""
    found = judge_all_reduce([{**each, "devices": devices} for each in measured()], None)
    assert f"among {devices} devices: 10 GB/s, {bus}" in found.message


def test_gradients_are_the_documented_parameters():
    """187 MB: four bytes for each of 46,764,746 parameters."""
    assert scaling.GRADIENT_BYTES == 187_058_984


def test_fit_finds_what_made_the_times():
    """From all-reduces of 3 GB/s and 20 µs a hop, of four sizes among two and four devices, both come back."""
    times = [
        (n, size, 2 * (n - 1) / n * size / 3e9 + 2 * (n - 1) * 20e-6) for n in (2, 4) for size in (4096, 10**6, 10**8)
    ]
    found = fit_link(times)
    assert found.bandwidth == pytest.approx(3e9, rel=1e-6)
    assert found.latency == pytest.approx(20e-6, rel=1e-6)


def test_fit_has_nothing_below_zero():
    """Times that shrink with size have no bandwidth to find: it is infinite, not negative."""
    found = fit_link([(2, 1000, 2.0), (2, 10**6, 1.0)])
    assert found.bandwidth == math.inf
    assert found.latency > 0


def test_fit_by_relative_errors():
    """Two large all-reduces 10 % off either way leave the small ones' latency; (1/1.1 + 1/0.9) / (1/1.1² + 1/0.9²)."""
    found = fit_link([(2, 4, 0.001), (2, 8, 0.001), (2, 10**9, 1.1), (2, 10**9, 0.9)])
    assert found.latency == pytest.approx(0.0005, rel=0.01)
    assert found.bandwidth == pytest.approx(1e9 / 0.98020, rel=2e-3)
