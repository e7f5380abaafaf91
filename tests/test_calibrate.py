"""The yardstick: the best rate of plain products of matrices, in the precision asked for."""

from types import SimpleNamespace

import keras
import pytest

from alexnet_repro.hardware import calibrate
from alexnet_repro.hardware.calibrate import matmul_rate


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
    assert 1e6 < matmul_rate("cpu:0", "float32", 256) < 1e15


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
    """What is multiplied is what hidden layers multiply: two to warm up and five that count."""
    assert matmul_rate("cpu:0", precision, 16) > 0
    assert operands == [[(dtype, (16, 16)), (dtype, (16, 16))]] * 7


@pytest.mark.parametrize(("device", "side"), [("cpu:0", 3), ("gpu:0", 5)])
def test_size_by_default(operands, monkeypatch, device, side):
    """Each kind of device has its size."""
    monkeypatch.setattr(calibrate, "SIDE", {"cpu": 3, "gpu": 5})
    monkeypatch.setattr(calibrate, "on_device", lambda _: keras.device("cpu"))
    matmul_rate(device, "float32")
    assert operands[0] == [("float32", (side, side)), ("float32", (side, side))]


def test_best_of_five_counts(monkeypatch):
    """2n³ operations in the least of five times; how fast the warm-up seemed doesn't matter."""
    seconds = [0.0625, 0.0625, 4.0, 0.5, 2.0, 1.0, 8.0]
    readings = iter([each for duration in seconds for each in (100.0, 100.0 + duration)])
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    assert matmul_rate("cpu:0", "float32", 8) == 2048.0
