"""Calibration: the best rate of matrix products in each precision, and the other rates."""

from itertools import count
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from alexnet_repro.verify.benchmark import calibration as calibrate
from alexnet_repro.verify.benchmark.calibration import matmul_rate


@pytest.fixture
def operands(monkeypatch):
    """Dtype and shape of the operands of each product."""
    seen, matmul = [], calibrate.ops.matmul

    def noting(a, b):
        seen.append([(keras.backend.standardize_dtype(each.dtype), tuple(each.shape)) for each in (a, b)])
        return matmul(a, b)

    monkeypatch.setattr(calibrate.ops, "matmul", noting)
    return seen


def test_rate_of_this_processor():
    """A real product's rate is between a megahertz of one operation and what no processor reaches."""
    assert 1e6 < matmul_rate("cpu:0", "float32", (256, 256, 256)) < 1e15


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("float32", "float32"),
        ("tf32", "float32"),
        ("mixed_bfloat16", "bfloat16"),
        ("mixed_float16", "float16"),
    ],
)
def test_operands_are_of_the_precision(operands, precision, dtype):
    """What is multiplied is what hidden layers multiply: once to warm up and four times that count."""
    assert matmul_rate("cpu:0", precision, (16, 8, 4)) > 0
    assert operands == [[(dtype, (16, 8)), (dtype, (8, 4))]] * 5


@pytest.fixture
def small(monkeypatch):
    """Arrays of a few kilobytes, and no products."""
    monkeypatch.setattr(calibrate, "DEVICE_PRECISIONS", dict.fromkeys(("cpu", "gpu"), ()))
    monkeypatch.setattr(calibrate, "MEMORY_BYTES", dict.fromkeys(("cpu", "gpu"), 1 << 12))
    monkeypatch.setattr(calibrate, "COPIED_BYTES", 1 << 10)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("device", ["cpu:0", "gpu:0"])
def test_best_product_counts(monkeypatch, device):
    """Of squares and layer-shaped products the fastest is the matmul peak, in each precision; all else is positive."""
    kind = device.partition(":")[0]
    monkeypatch.setattr(calibrate, "PRODUCTS", {kind: ((1, 2, 3), (4, 5, 6))})
    monkeypatch.setattr(calibrate, "on_device", lambda _: keras.device("cpu"))
    monkeypatch.setattr(
        calibrate, "matmul_rate", lambda _device, name, shape: sum(shape) * (2 if name == "tf32" else 1)
    )
    monkeypatch.setattr(calibrate, "DEVICE_PRECISIONS", {kind: ("float32", "tf32")})
    found = calibrate.calibrate.__wrapped__(device)
    assert found.matmul == {"float32": 15, "tf32": 30}
    rates = (found.memory, found.read, found.write, found.to_device, found.to_host, found.call_overhead)
    assert min(rates) > 0
    assert found.kernel_launch >= 0


def test_gpu_is_sampled_meanwhile(monkeypatch):
    """Of each precision's products the clock is kept that a power limit held, and of all the fastest link."""
    now = count(100)
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(calibrate, "DEVICE_PRECISIONS", {"gpu": ("float32", "tf32")})
    monkeypatch.setattr(calibrate, "PRODUCTS", {"gpu": ((1, 2, 3),)})
    monkeypatch.setattr(calibrate, "matmul_rate", lambda *_: 1.0)
    monkeypatch.setattr(calibrate, "_other_rates", lambda _: {"memory": 1.0})
    of_time = {
        (100, 101): {"gpu_mhz": [1980, 1400], "throttle_reasons": [0x0, 0x4]},
        (101, 102): {"gpu_mhz": [1980], "throttle_reasons": [0x0]},
        (100, 103): {"pcie_generation": [1, 4, 4], "pcie_width": [None, 8, 16]},
    }
    sampler = SimpleNamespace(between=lambda *times: of_time[times], close=lambda: None)
    monkeypatch.setattr(calibrate, "Sampler", lambda *_: sampler)
    found = calibrate.calibrate.__wrapped__("gpu:0")
    assert (found.clocks, found.pcie_generation, found.pcie_width) == ({"float32": 1400}, 4, 16)


@pytest.mark.parametrize(("precision", "different"), [("float32", 1), ("mixed_bfloat16", 0.5)])
def test_operands_are_random(monkeypatch, precision, different):
    """Elements differ, to half of them where 8 bits can, and none are zeros: a GPU is faster on what doesn't change."""
    seen = []
    monkeypatch.setattr(calibrate.ops, "matmul", lambda a, b: seen.extend((a, b)) or a)
    matmul_rate("cpu:0", precision, (16, 32, 8))
    a, b = (keras.ops.convert_to_numpy(keras.ops.cast(each, "float32")) for each in seen[:2])
    assert len({*a.ravel(), *b.ravel()}) >= different * (16 * 32 + 32 * 8)
    assert -1 <= a.min() < 0 < a.max() <= 1
    assert (a != 0).all()
    assert (b != 0).all()


def test_nothing_is_drawn_on_the_host(monkeypatch):
    """Operands are drawn where they are multiplied: hundreds of millions of numbers take seconds elsewhere."""
    monkeypatch.setattr(calibrate.np.random, "default_rng", lambda *_: pytest.fail("drawn by NumPy"))
    assert matmul_rate("cpu:0", "float32", (16, 8, 4)) > 0


@pytest.mark.parametrize(
    ("seconds", "rates"),
    [
        pytest.param({"add": 3.0, "max": 2.0, "sum": 1.0, "matmul": 4.0, "write": 2.0}, (1.0, 0.5), id="best=sum"),
        pytest.param({"add": 3.0, "max": 4.0, "sum": 4.0, "matmul": 1.0, "write": 2.0}, (1.0, 0.5), id="best=matmul"),
        pytest.param({"add": 9.0, "max": 1.0, "sum": 4.0, "matmul": 4.0, "write": 2.0}, (1.0, 0.5), id="best=max"),
        # An addition in two thirds of the time that both would take shows that both are faster by half.
        pytest.param({"add": 2.0, "max": 1.0, "sum": 1.0, "matmul": 1.0, "write": 2.0}, (1.5, 0.75), id="best=add"),
    ],
)
def test_reads_and_writes(monkeypatch, seconds, rates):
    """Bytes/s read by the fastest of three operations, and written; no less than an addition shows, which does both."""
    size = 1 << 12
    monkeypatch.setattr(calibrate, "MEMORY_BYTES", {"cpu": size})
    for name in ("add", "max", "sum", "matmul"):
        monkeypatch.setattr(calibrate.ops, name, lambda *_, name=name: name)
    monkeypatch.setattr(calibrate, "_best", lambda work, **_: seconds.get(str(work()), seconds["write"]))
    found = calibrate.memory_rates("cpu:0")
    assert (found["read"], found["write"]) == pytest.approx(tuple(size * each for each in rates))
    assert found["memory"] == pytest.approx(2 * size / seconds["add"])


def test_memory_of_this_processor():
    """An array is written by all processors: as a whole, and at a rate between a megabyte/s and what no memory has."""
    array = np.zeros(1 << 20, np.float32)
    assert 1e6 < array.nbytes / calibrate._written_by_threads(array) < 1e14
    assert (array == 0.5).all()


def test_several_calls_are_waited_for_once(monkeypatch):
    """A call's time is a round's over its calls."""
    done = []
    monkeypatch.setattr(calibrate, "synchronize", lambda *_: done.append("wait"))
    clock = iter(range(0, 80, 8))
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert calibrate._best(lambda: done.append("call"), rounds=1, calls=4) == 2.0
    assert done == ["wait", *["call"] * 4, "wait"] * 2


@pytest.mark.usefixtures("small")
def test_launch_of_a_kernel(monkeypatch):
    """What a chain of 200 kernels takes beyond a call of one, for each of the other 199; and that call's own time."""
    seconds = {1: 2.0, 200: 401.0}
    monkeypatch.setattr(calibrate, "_chain", lambda kernels: lambda _: seconds[kernels])
    monkeypatch.setattr(calibrate, "_best", lambda work, *_, **__: found if isinstance(found := work(), float) else 1.0)
    found = calibrate.calibrate.__wrapped__("cpu:0")
    assert found.call_overhead == 2.0
    assert found.kernel_launch == pytest.approx(399 / 199)


def test_chain_of_kernels():
    """Each kernel of a chain takes what the one before it has made."""
    half = keras.ops.convert_to_tensor([0.5])
    assert float(calibrate._chain(3)(half)[0]) == 0.0625


def test_chain_is_launched_as_a_train_step(monkeypatch):
    """TensorFlow and JAX trace the chain once, and launch its kernels without Python; PyTorch by each operation."""
    calls, multiply = [], calibrate.ops.multiply
    monkeypatch.setattr(calibrate.ops, "multiply", lambda a, b: calls.append(1) or multiply(a, b))
    chain, half = calibrate._chain(3), keras.ops.convert_to_tensor([0.5])
    for _ in range(4):
        chain(half)
    assert len(calls) == (12 if keras.backend.backend() == "torch" else 3)


@pytest.mark.parametrize(("kind", "shared"), [("cpu", False), ("gpu", True)])
def test_one_copy_on_the_host(kind, shared):
    """What came from a GPU isn't copied once more on the host; a CPU's own array is."""
    kept = np.zeros(3, np.uint8)

    class OnDevice:
        __array_interface__ = kept.__array_interface__
        base = kept

        def cpu(self):
            return self

    assert np.shares_memory(calibrate._on_host(OnDevice(), kind), kept) == shared


@pytest.mark.usefixtures("small")
def test_copies_to_the_host_are_of_new_tensors(monkeypatch):
    """No round copies what an earlier one did, which a backend may have kept on the host."""
    copied = []
    monkeypatch.setattr(calibrate, "_on_host", lambda tensor, _: copied.append(tensor))
    calibrate.calibrate.__wrapped__("cpu:0")
    assert len({id(tensor) for tensor in copied}) == 5


def test_product_is_waited_for(monkeypatch):
    """The clock stops once the product is there, and starts once nothing else is under way."""
    done = []
    monkeypatch.setattr(calibrate, "synchronize", lambda *values: done.append(values))
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: done.append("clock") or len(done)))
    calibrate._best(lambda: "product", rounds=1)
    assert done == [(), "clock", ("product",), "clock"] * 2  # warm-up and one round


def test_best_of_four_counts(monkeypatch):
    """2n³ operations in the least of four times; how fast the warm-up seemed doesn't matter."""
    seconds = [0.0625, 4.0, 0.5, 2.0, 1.0]
    readings = iter([each for duration in seconds for each in (100.0, 100.0 + duration)])
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    assert matmul_rate("cpu:0", "float32", (8, 8, 8)) == 2048.0
